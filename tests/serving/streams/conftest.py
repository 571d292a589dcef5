"""Brokers, started once a module and only when asked for, and a deployed model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lifecycle.rollout_world import RolloutWorld
from servers import NatsServer, RedisServer
from serving.streams.stream_world import KafkaBroker, NatsBroker, RedisBroker, Streams, deployed


@pytest.fixture(scope="module", params=["redis", "nats", "kafka"])
def broker(request, tmp_path_factory) -> Iterator[Any]:
    """A broker of each kind."""
    if request.param == "kafka":
        yield KafkaBroker()
        return
    folder = tmp_path_factory.mktemp(request.param)
    server = RedisServer(folder) if request.param == "redis" else NatsServer(folder)
    yield RedisBroker(server) if isinstance(server, RedisServer) else NatsBroker(server)
    server.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> RolloutWorld:
    """A deployed model."""
    return deployed(tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def streams(broker) -> Streams:
    """New streams at the broker."""
    return Streams.new(broker)
