"""A model of MLflow's that no graph can stand for: packaged with the environment it was logged with."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from noria.config import load_server_settings
from noria.registry import NewVersion, Policies, register_version
from noria.store.workspace import Workspace, artifact_uri
from serving.package.image import Image, running
from support import noria

SCRIPT = Path(__file__).with_name("save_model.py")


@pytest.mark.peer
def test_it_runs_in_its_own_environment_beside_the_gateways(mlflow_python, tmp_path):
    subprocess.run([mlflow_python, SCRIPT, tmp_path / "saved"], check=True, cwd=tmp_path, capture_output=True)
    (tmp_path / "noria.toml").write_text("[gateway]\nport = 8001\n")
    workspace = Workspace(tmp_path, load_server_settings(tmp_path, None, {}))
    workspace.artifacts.put_folder("models/greeter", tmp_path / "saved")
    with workspace.database.write() as tx:
        new = NewVersion("greeter", artifact_uri("models/greeter"))
        register_version(tx, new, policies=Policies(), at=datetime.now(UTC), actor="ann")
    noria("package", "models:/greeter/1", "--output", "packaged", cwd=tmp_path)
    (lock,) = (tmp_path / "packaged/environments").glob("*/requirements.lock")
    assert "pandas==2.2.3 \\" in lock.read_text()
    assert "pandas" not in (tmp_path / "packaged/requirements.lock").read_text()
    image = Image(Path(shutil.copytree(tmp_path / "packaged", tmp_path / "image/context")), tmp_path / "image")
    assert image.environment["NORIA_ENVIRONMENTS"] == f"{image.root}/opt/noria/environments"
    with running(image) as client:
        answer = client.post("/predict", json={"features": {"name": "ada", "visits": 3}}).json()
    assert answer["prediction"] == "ada 6 pandas 2.2.3"
