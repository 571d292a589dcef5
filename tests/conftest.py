"""What all tests share: a project made by `noria init`, trained once, and the processes it runs in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from noria.surface.cli.processes import Child
from support import noria

MLFLOW = Path(__file__).parents[1] / ".bench/mlflow"
MLFLOW_PACKAGES = ["mlflow==3.17.*", "scikit-learn", "cloudpickle"]


@pytest.fixture(scope="session")
def mlflow_python() -> Path:
    """The interpreter of MLflow's own environment, installed when it is missing."""
    python = MLFLOW / "bin/python"
    MLFLOW.parent.mkdir(exist_ok=True)
    with FileLock(f"{MLFLOW}.lock"):
        if not (MLFLOW / "bin/mlflow").exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, MLFLOW], check=True)
            subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *MLFLOW_PACKAGES], check=True)
    return python


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template project with version 1 in Production."""
    folder = tmp_path_factory.mktemp("trained") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    noria("run", cwd=folder)
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained project that the test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "shop"))


@pytest.fixture(scope="module")
def governed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained project with a policy for models called governed."""
    folder = tmp_path_factory.mktemp("server") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    config = folder / "noria.toml"
    governed = (
        '[policies."governed*".stages.Production]\nrequired_tags = ["reviewed"]\nrequired_metrics = ["auc >= 0.9"]\n'
    )
    config.write_text(config.read_text().replace('[policies."*"', governed + '\n[policies."hourly*"'))
    return folder


@pytest.fixture(scope="module")
def server(governed_project: Path) -> Iterator[str]:
    """A live `noria server` over the governed project; its URL."""
    child = Child("server", governed_project, 0)
    yield child.url
    child.stop()
