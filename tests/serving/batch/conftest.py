"""A batch world for every test that asks for one."""

from __future__ import annotations

import pytest

from serving.batch.batch_world import BatchWorld
from serving.gateway_world import World, new_world


@pytest.fixture
def batch(tmp_path) -> BatchWorld:
    """A model that takes two numbers."""
    return BatchWorld(World(tmp_path))


@pytest.fixture
def with_views(tmp_path) -> BatchWorld:
    """A model that also looks features up, by carrier and origin."""
    return BatchWorld(new_world(tmp_path), views=True)
