"""A smoke test with Tansu: a broker of its own making that speaks Kafka's protocol; its groups are young."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from servers import free_port, listens
from serving.streams.stream_world import Consumer, Streams, body, deployed
from support import tansu_broker

pytestmark = pytest.mark.peer


class TansuBroker:
    """A process that keeps its topics in memory."""

    def __init__(self) -> None:
        self._program, port = str(tansu_broker()), free_port()
        self._address = f"127.0.0.1:{port}"
        where = [f"tcp://{self._address}"] * 2
        command = [self._program, "broker", "--listener-url", where[0], "--advertised-listener-url", where[1]]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([*command, "--storage-engine", "memory://tansu/"], **quiet)
        deadline = time.monotonic() + 30
        while not listens(port):
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def url(self, stream: str) -> str:
        return f"kafka://{self._address}#{stream}"

    def make(self, *streams: str) -> None:
        for stream in streams:
            command = [self._program, "topic", "create", "--broker", f"tcp://{self._address}", "--partitions", "2"]
            subprocess.run([*command, stream], check=True, capture_output=True, timeout=30)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def broker() -> Iterator[Any]:
    """A broker."""
    found = TansuBroker()
    yield found
    found.stop()


def test_messages_are_answered_and_poison_is_set_aside(broker, tmp_path):
    deployed(tmp_path)
    streams = Streams.new(broker)
    streams.publish([*(body(n) for n in range(100)), b"no json"], keys=[b"%d" % n for n in range(101)])
    consumer = Consumer(tmp_path, streams)
    answered = streams.consumed("out", lambda found: len(found) >= 100)
    refused = streams.consumed("dead", lambda found: len(found) >= 1)
    consumer.stop()
    keys = {message.headers["noria-idempotency-key"] for message in answered}
    assert len(keys) == 100 and all("score" in json.loads(message.body) for message in answered)
    assert refused[0].body == b"no json" and "invalid_input" in refused[0].headers["noria-reason"]
