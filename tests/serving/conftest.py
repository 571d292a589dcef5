"""A served world for every test that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.gateway_world import World, new_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two known entities, nothing deployed."""
    return new_world(tmp_path)
