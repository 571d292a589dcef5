"""A package of the trained project, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import noria


@pytest.fixture(scope="session")
def package(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `noria package` writes for the trained project's deployment; not to be changed."""
    folder = tmp_path_factory.mktemp("packages") / "demand"
    mask = os.umask(0o077)  # as a careful person's is
    noria("package", "--deployment", "demand", "--grpc-port", "8001", "--output", str(folder), cwd=trained)
    os.umask(mask)
    return folder
