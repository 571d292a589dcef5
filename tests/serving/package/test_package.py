"""A packaged model: what the folder says of itself, and what it answers once installed as its Dockerfile has it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cloudpickle
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from noria.config import load_server_settings
from noria.features import OnlineFeatures
from noria.optimize.bundle import read_bundle
from noria.rollout import read_routes
from noria.serving.package.lock import parse
from noria.store import open_keyvalue
from noria.store.workspace import Workspace
from serving.package.image import Image, running
from support import noria


def model_folder(folder: Path) -> Path:
    """Where a package, or a project's state, keeps its first variant's model."""
    (route,) = (folder / "routes").glob("*.json")
    return folder / "artifacts" / read_routes(route).variants[0].source


def test_packaging_twice_gives_the_same_bytes(package, trained, tmp_path):
    words = ("package", "--deployment", "demand", "--grpc-port", "8001")
    noria(*words, "--output", str(tmp_path / "again"), cwd=trained)
    names = [sorted(str(p.relative_to(root)) for p in root.rglob("*")) for root in (package, tmp_path / "again")]
    assert names[0] == names[1]
    files = [name for name in names[0] if (package / name).is_file()]
    assert [name for name in files if (package / name).read_bytes() != (tmp_path / "again" / name).read_bytes()] == []


def test_everyone_may_read_it_wherever_it_is_copied(package):
    assert {oct(path.stat().st_mode & 0o777) for path in [package, *package.rglob("*")]} == {"0o755", "0o644"}
    texts = [path.read_bytes() for path in package.rglob("*") if path.is_file()]
    assert not any(str(package.parents[1]).encode() in text for text in texts)


def test_the_manifest_says_where_the_model_comes_from(package):
    manifest = json.loads((package / "MANIFEST.json").read_text())
    (version,) = manifest["versions"]
    assert version["version"]["version"] == "hourly-demand@1"
    assert version["version"]["stage"] == "Production"
    assert version["run"]["params"] and version["data"][0]["digest"]
    assert version["signature"]["inputs"][0] == ["hour", "double"]
    assert version["policy"]["stages"]["Production"] == {"required_metrics": ["mae"]}
    assert len(manifest["audit"]["head"]) == 64 and manifest["audit"]["entries"] > 0
    assert manifest["deployment"]["variants"][0]["percent"] == 100


def test_verify_names_every_file_that_is_not_what_it_was(package, tmp_path):
    folder = Path(shutil.copytree(package, tmp_path / "moved"))
    assert "files verified" in noria("package", "verify", str(folder), cwd=tmp_path).stdout
    (folder / "model/predictions/2026-01-01").mkdir(parents=True)
    (folder / "model/predictions/2026-01-01/1.log").write_text("made by serving")
    (folder / ".venv/bin").mkdir(parents=True)
    noria("package", "verify", str(folder), cwd=tmp_path)
    (folder / "noria.toml").write_text("[gateway]\nport = 1\n")
    (folder / "compose.yaml").unlink()
    (folder / "model/extra.bin").write_bytes(b"x")
    refused = noria("package", "verify", str(folder), cwd=tmp_path, check=False)
    assert refused.returncode == 1
    for words in ("noria.toml was changed", "compose.yaml is missing", "model/extra.bin is not in the manifest"):
        assert words in refused.stderr


def test_another_folders_content_is_never_replaced(package, trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    words = ("package", "models:/hourly-demand/1", "--output")
    for folder, remedy in ((tmp_path, "Name a new folder"), (package, "Add --yes")):
        refused = noria(*words, str(folder), cwd=trained, check=False)
        assert (refused.returncode, remedy in refused.stderr) == (1, True)
    assert (tmp_path / "thesis.txt").exists()


def test_the_bill_of_materials_is_cyclonedx_and_names_all_that_is_installed(package):
    text = (package / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text)["metadata"]["tools"]["components"][0]["name"] == "noria"
    components = {(one["name"], one["version"]) for one in json.loads(text)["components"]}
    locked = {(one.name, one.version) for one in parse((package / "requirements.lock").read_text().split("\n./")[0])}
    assert locked < components and ("hourly-demand", "1") in components
    addresses = {one["name"]: one.get("purl", "") for one in json.loads(text)["components"]}
    assert addresses["noria"].startswith("pkg:generic/noria@")  # PyPI has another project of that name
    assert addresses["numpy"].startswith("pkg:pypi/numpy@")
    licensed = [one for one in json.loads(text)["components"] if one.get("licenses")]
    assert len(licensed) > len(locked) / 2


def test_the_dockerfile_has_nothing_a_linter_minds(package):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, package / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_runs_it_with_nothing_it_does_not_need(package):
    service = yaml.safe_load((package / "compose.yaml").read_text())["services"]["gateway"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["volumes"] == ["predictions:/opt/noria/package/model/predictions"]


@pytest.fixture(scope="module")
def image(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The package, moved elsewhere and built as its Dockerfile says."""
    scratch = tmp_path_factory.mktemp("image")
    return Image(Path(shutil.copytree(package, scratch / "context")), scratch)


def test_the_image_answers_as_the_model_does_without_network_or_disk(image, trained):
    hour, weekday, mean = 17.0, 3.0, _online_mean(trained, "north")
    own = cloudpickle.loads((model_folder(trained / ".noria") / "model.pkl").read_bytes())
    expected = float(own.predict([[hour, weekday, mean]])[0])
    request = {
        "entities": {"shop": "north"},
        "features": {"hour": hour, "weekday": weekday},
        "event_time": "2026-02-28T00:00:00Z",
    }
    with running(image) as client:
        assert client.get("/health").json()["status"] == "healthy"
        answer = client.post("/predict", json=request).json()
        assert answer["prediction"] == pytest.approx(expected, abs=1e-3)
        assert answer["model_version"] == "1"
        assert client.get("/health").json()["status"] == "healthy"  # the log took it


def test_the_image_says_how_it_is_run(image):
    assert image.said["USER"] == "10001:10001"
    assert image.said["EXPOSE"] == "8000 8001"
    assert image.said["STOPSIGNAL"] == "SIGTERM"
    assert "/health" in image.said["HEALTHCHECK"]


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def test_the_health_check_asks_the_port_that_is_set_and_no_proxy(image):
    command = json.loads(image.said["HEALTHCHECK"].partition("CMD ")[2])
    with HTTPServer(("127.0.0.1", 0), _Healthy) as server:
        environment = image.environment | {"NORIA_GATEWAY__PORT": str(server.server_port), "http_proxy": "http://no:1"}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert subprocess.run(command, env=environment, check=False).returncode == 0
        environment["NORIA_GATEWAY__TLS_KEY"] = "tls.key"  # which this one does not speak
        assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 1
        server.shutdown()


def test_a_package_scores_a_table_by_the_words_of_its_job(package, trained, tmp_path):
    words = ("--job", "--image", "r.io/demand:1", "--input", "rows.csv", "--predictions", "scores", "--output", "k8s")
    noria("deploy", "k8s", "--deployment", "demand", *words, cwd=trained)
    documents = [one for path in (trained / "k8s").glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    (job,) = [one for one in documents if one["kind"] == "Job"]
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    place = command.index("--project") + 1
    command[place] = str(shutil.copytree(package, tmp_path / "moved"))
    (tmp_path / "rows.csv").write_text("shop,hour,weekday,at\nnorth,17,3,2026-02-28\n")
    done = noria(*command[1:], cwd=tmp_path, NORIA_STORE__DATABASE="")
    assert "hourly-demand@1: 1 row in 1 part" in done.stdout
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 1
    command[command.index("--deployment") + 1] = "no"
    refused = noria(*command[1:], cwd=tmp_path, check=False)
    assert refused.returncode == 1 and "nothing is deployed as 'no'" in refused.stderr


def _online_mean(project: Path, shop: str) -> float:
    workspace = Workspace(project, load_server_settings(project, None, {}))
    bundle = read_bundle(model_folder(project / ".noria"))
    store = open_keyvalue(workspace.online_url, project)
    (mean,) = OnlineFeatures(store).vector(bundle.views, {"shop": shop}, 1_772_236_800_000)
    store.close()
    return float(mean)
