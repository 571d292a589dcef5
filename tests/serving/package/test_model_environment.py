"""Models with environments of their own: each is packaged with a lock of it, and runs there beside the gateway."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifecycle.rollout_world import RolloutWorld
from noria.config import ServerSettings, load_server_settings
from noria.lifecycle.composing import Composer
from noria.lifecycle.deploying import parse_address
from noria.lifecycle.packaging import PackageOptions, Packager
from noria.lifecycle.served_routes import address_routes
from noria.registry import NewVersion, Policies, register_version
from noria.serving.package.recipe import default_base_image
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


@pytest.mark.peer
def test_a_chains_transformer_has_its_packages_and_its_member_what_it_needs(tmp_path):
    world = RolloutWorld(tmp_path / "world")
    world.add_version()
    (tmp_path / "transformer.py").write_text(
        "import humanize\n"
        "def postprocess(answers, columns):\n"
        "    return [f'{humanize.ordinal(one[\"prediction\"])} of {humanize.__version__}' for one in answers]\n"
    )
    composer = Composer(world.workspace, world.policies, world.clock, "ann")
    chain = composer.chain("chain", "models:/churn/1", tmp_path / "transformer.py", requirements=["humanize==4.12.0"])
    routes = address_routes(
        world.workspace, world.policies, world.clock, parse_address(f"models:/chain/{chain.version}"), actor="ann"
    )
    output = tmp_path / "image/context"
    Packager(world.workspace, ServerSettings()).package(routes, output, PackageOptions(default_base_image()))
    assert "onnxruntime==" in (output / "requirements.lock").read_text()
    assert "humanize" not in (output / "requirements.lock").read_text()
    image = Image(output, tmp_path / "image")
    with running(image) as client:
        answer = client.post("/predict", json={"features": {"a": 3.0, "b": -3.0, "c": 3.0}}).json()
    assert answer["prediction"] == "1st of 4.12.0"
