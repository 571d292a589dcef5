"""What all tests share: a project made by `noria init`, trained once, and the processes it runs in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.surface.cli.processes import Child
from support import noria


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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live `noria server` over a project of its own with a policy; its URL."""
    folder = tmp_path_factory.mktemp("server") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    config = folder / "noria.toml"
    governed = (
        '[policies."governed*".stages.Production]\nrequired_tags = ["reviewed"]\nrequired_metrics = ["auc >= 0.9"]\n'
    )
    config.write_text(config.read_text().replace('[policies."*"', governed + '\n[policies."hourly*"'))
    child = Child("server", folder, 0)
    yield child.url
    child.stop()
