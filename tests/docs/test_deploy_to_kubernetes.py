"""The how-to's commands as written, and what they leave."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from support import noria

PAGE = Path(__file__).parents[2] / "docs/how-to/deploy-to-kubernetes.md"


def kinds(folder: Path) -> list[str]:
    return [yaml.safe_load(path.read_text())["kind"] for path in sorted(folder.glob("*.yaml"))]


def test_every_command_of_the_page_runs(project):
    commands = re.findall(r"```bash\nnoria (.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert len(commands) == 6
    for command in commands:
        noria(*shlex.split(command.replace("\\\n", " ")), cwd=project)
    assert kinds(project / "k8s/demand") == [
        "ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Service",
        "NetworkPolicy", "ServiceMonitor",
    ]  # fmt: skip
    assert kinds(project / "k8s/demand-mesh")[-1] == "HTTPRoute"
    assert kinds(project / "k8s/demand-kserve")[-1] == "InferenceService"
    assert kinds(project / "k8s/demand-seldon")[-1] == "SeldonDeployment"
    assert kinds(project / "k8s/demand-batch")[-1] == "CronJob"
    assert (project / "charts/demand/Chart.yaml").is_file()


def test_what_cannot_be_written_is_told_with_a_remedy(project):
    words = ("deploy", "k8s", "--output", "out")
    for more, code, told in [
        (("--deployment", "demand", "--memory", "512m"), 2, "512Mi"),
        (("--deployment", "elsewhere"), 1, "noria deploy list"),
        ((), 2, "--deployment NAME"),
        (("--deployment", "demand", "--target", "kserve", "--storage"), 2, "store.artifacts"),
        (("--deployment", "demand", "--job"), 2, "--input"),
        (("--deployment", "demand", "--schedule", "@daily"), 2, "without --job"),
        (("--deployment", "demand", "--transformer", "image:1"), 2, "without --target kserve"),
    ]:
        refused = noria(*words, *more, cwd=project, check=False)
        assert (refused.returncode, told in refused.stderr) == (code, True), refused.stderr
    assert not (project / "out").exists()
