"""Brokers of several servers: a stream is found wherever it lies, through any of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import redis

from noria.errors import InvalidInput
from noria.serving.streams import Answer, open_reader, open_writer
from servers import NatsServer, RedisServer, free_port
from serving.streams.stream_world import PATIENCE_SECONDS, NatsBroker

ON_THE_FIRST, ON_THE_SECOND = "b", "a"
"""Keys whose slots, 3300 and 15495, are in the first and in the second half."""


def make_cluster(nodes: list[RedisServer], bus_ports: list[int]) -> None:
    """Give each of two nodes half of the slots, and let them know each other."""
    clients = [redis.Redis.from_url(node.url, decode_responses=True) for node in nodes]
    port = nodes[1].url.rpartition(":")[2].partition("/")[0]
    clients[0].execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
    clients[1].execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
    clients[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus_ports[1])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(client.cluster("INFO")["cluster_state"] != "ok" for client in clients):
        assert time.monotonic() < deadline, "the nodes do not find each other"
        time.sleep(0.05)
    for client in clients:
        client.close()


@pytest.fixture
def redis_cluster(tmp_path) -> Iterator[str]:
    nodes, bus_ports = [], [free_port(), free_port()]
    try:
        for number, port in enumerate(bus_ports):
            folder = tmp_path / str(number)
            folder.mkdir()
            nodes.append(RedisServer(folder, "--cluster-enabled", "yes", "--cluster-port", str(port)))
        make_cluster(nodes, bus_ports)
        yield nodes[0].url
    finally:
        for node in nodes:
            node.stop()


def passed_on(url: str) -> tuple[list[bytes], int | None]:
    """What comes out of a stream of what is put into it, and what is left."""

    async def both() -> tuple[list[bytes], int | None]:
        reader, writer = open_reader(url, "group"), open_writer(url)
        await writer.send([])
        await writer.send([Answer("1", b"one"), Answer("2", b"two")])
        found = await reader.receive(5, PATIENCE_SECONDS)
        await reader.hold(found)
        await reader.acknowledge(found)
        left = await reader.lag()
        await reader.close()
        await writer.close()
        return [one.body for one in found], left

    return asyncio.run(both())


def test_a_stream_on_any_node_of_a_redis_cluster_is_read_and_written(redis_cluster):
    for stream in (ON_THE_FIRST, ON_THE_SECOND):
        assert passed_on(f"{redis_cluster}#{stream}") == ([b"one", b"two"], 0)
    with pytest.raises(InvalidInput, match="no such database"):
        passed_on(f"{redis_cluster.removesuffix('0')}1#{ON_THE_FIRST}")


def test_one_of_several_nats_servers_is_enough(tmp_path):
    server = NatsServer(tmp_path)
    NatsBroker(server).make("in")
    several = server.url.replace("nats://", f"nats://127.0.0.1:{free_port()},")
    assert passed_on(f"{several}#in") == ([b"one", b"two"], 0)
    server.stop()
