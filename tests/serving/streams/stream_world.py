"""Real brokers with a source, a sink and a dead-letter stream, seen from their clients; and the process in between."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lifecycle.rollout_world import INPUTS, MODEL, RolloutWorld
from noria.ids import new_id
from noria.serving.streams import Answer, Message, open_reader, open_writer
from servers import NatsServer, RedisServer
from serving.streams.mock_kafka import MockKafka

PATIENCE_SECONDS = 90
_QUICK = "session.timeout.ms=2000&heartbeat.interval.ms=300&reconnect.backoff.max.ms=500&fetch.wait.max.ms=50"
"""How soon the members of a Kafka group notice that one of them, or a broker, is away; and how long the mock holds back
what came meanwhile."""


class Broker(Protocol):
    """A broker that makes streams."""

    def url(self, stream: str) -> str:
        """Where a stream is."""

    def make(self, *streams: str) -> None:
        """Make streams, where they must be made."""


class RedisBroker:
    """Makes its streams by itself."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def url(self, stream: str) -> str:
        return f"{self.server.url}?claim_ms=1500#{stream}"

    def make(self, *streams: str) -> None:
        pass


class NatsBroker:
    """Needs a stream for every subject."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server

    def url(self, stream: str) -> str:
        return f"{self.server.url}?ack_seconds=2#{stream}"

    def make(self, *streams: str) -> None:
        async def add() -> None:
            import nats

            client = await nats.connect(self.server.url)
            for stream in streams:
                await client.jetstream().add_stream(name=stream.upper(), subjects=[stream])
            await client.close()

        asyncio.run(add())


class KafkaBroker:
    """librdkafka's mock cluster."""

    def __init__(self) -> None:
        self.server = MockKafka()

    def url(self, stream: str) -> str:
        return f"kafka://{self.server.address}?{_QUICK}#{stream}"

    def make(self, *streams: str) -> None:
        for stream in streams:
            self.server.make(stream)


@dataclass
class Streams:
    """One test's source, sink and dead letters at a broker."""

    broker: Any
    name: str

    @classmethod
    def new(cls, broker: Broker) -> Streams:
        name = f"t{new_id()[:8]}"
        broker.make(*(f"{name}-{end}" for end in ("in", "out", "dead")))
        return cls(broker, name)

    def url(self, end: str) -> str:
        """The URL of ``in``, ``out`` or ``dead``."""
        return self.broker.url(f"{self.name}-{end}")

    def publish(self, bodies: Sequence[bytes], *, keys: Sequence[bytes | None] | None = None, end: str = "in") -> None:
        """Produce messages."""
        given = keys or [None] * len(bodies)
        answers = [Answer(new_id(), body, key) for body, key in zip(bodies, given, strict=True)]

        async def send() -> None:
            writer = open_writer(self.url(end))
            for start in range(0, len(answers), 500):
                await writer.send(answers[start : start + 500])
            await writer.close()

        asyncio.run(send())

    def consumed(self, end: str, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """All messages at an end, once there are enough."""

        async def read() -> list[Message]:
            reader, found = open_reader(self.url(end), f"test-{new_id()}"), []
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not enough(found):
                assert time.monotonic() < deadline, f"only {len(found)} messages came"
                some = await reader.receive(500, 0.5)
                if some:
                    await reader.acknowledge(some)
                found += some
            await reader.close()
            return found

        return asyncio.run(read())


class Consumer:
    """`noria predict stream` in a process of its own."""

    def __init__(self, project: Path, streams: Streams, *more: str, dead_letter: bool = True) -> None:
        words = ["predict", "stream", "--project", str(project), "--announce", "--metrics-port", "0", *more]
        words += ["--source", streams.url("in"), "--sink", streams.url("out")]
        words += ["--dead-letter", streams.url("dead")] if dead_letter else []
        words += [] if "--model" in more else ["--deployment", MODEL]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "noria", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.log: list[str] = []
        self._drain = threading.Thread(target=lambda: self.log.extend(self.process.stderr or ()), daemon=True)
        self._drain.start()
        line = self.process.stdout.readline()
        assert line, self._said()
        self.port = json.loads(line)["metrics_port"]

    def metrics(self) -> dict[str, float]:
        """What Prometheus would see, without labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name.partition("{")[0].removeprefix("noria_stream_"): float(value) for name, _, value in lines}

    def wait_until(self, reached: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The metrics, once they are as wanted."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached(found := self.metrics()):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self._gone()

    def stop(self) -> None:
        """End it as an operator does; it must end well."""
        self.process.terminate()
        self._gone()
        assert self.process.returncode == 0, self._said()

    def _gone(self) -> None:
        self.process.wait(60)
        self._drain.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _said(self) -> str:
        self._drain.join(1)
        return "".join(self.log)


def deployed(folder: Path) -> RolloutWorld:
    """A model that is deployed."""
    world = RolloutWorld(folder)
    world.deploy(world.add_version())
    return world


def body(number: int) -> bytes:
    """A request to predict."""
    return json.dumps({"features": dict.fromkeys(INPUTS, number / 10), "entities": {"n": number}}).encode()


def number_of(message: Message) -> int:
    """Which one of ``body`` was answered, by its source header, in the order of a stream with one partition."""
    return int(message.headers["noria-source"].rpartition("/")[2].partition("-")[0])
