"""Load on a gateway: connections that ask over and over, or requests at a steady rate, and how long answers took."""

from __future__ import annotations

import asyncio
import ssl
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import httptools
import uvloop

from noria.client.address import Address, reach_remedy
from noria.client.predictions import refusal
from noria.errors import Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEVER_DUE = "no request was due while it was measured"
"""The fault of a rate that is too low for the time."""
NEVER_SENT = "never sent, all connections were busy"
"""The fault of a rate that is more than the gateway answers."""
_CONNECT_SECONDS = 5.0
_LAST_ANSWERS_SECONDS = 5.0
_TICK_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, by how many connections, for how long.

    ``bodies`` are sent in turn. Without a ``rate`` every connection asks again as soon as it is answered; with one, so
    many requests a second are due whatever the gateway does, and the wait for a free connection counts as well.
    """

    address: Address
    path: str
    bodies: Sequence[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = 64
    seconds: float = 10.0
    warmup_seconds: float = 1.0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """``latencies`` are those of the good answers, in seconds, by size; ``faults`` counts what else happened.

    ``said`` is why a request was refused, by the fault: of each kind the first. ``in_time`` of the good answers came
    within the ``seconds``, the others to what was asked in these.
    """

    latencies: NDArray[np.float64]
    faults: Mapping[str, int]
    seconds: float
    in_time: int
    said: Mapping[str, str] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return self.in_time / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """The latency that so many percent of the good answers did not exceed, in seconds; NaN without any."""
        import numpy as np

        if not len(self.latencies):
            return float("nan")
        return float(np.percentile(self.latencies, percent, method="inverted_cdf"))


def measure(load: Load, told: Callable[[float, int], None] = lambda _seconds, _answers: None) -> Measured:
    """Put the load on; ``told`` hears, several times a second, how long it has been on and how many answers came.

    Raises Unavailable when no connection can be made.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Generator(load, told).run())


class _Generator:
    """Holds the connections, and hands out requests until the time is over."""

    def __init__(self, load: Load, told: Callable[[float, int], None]) -> None:
        self.load = load
        self.requests = [_request(load, body) for body in load.bodies]
        self.latencies = array("d")
        self.faults: Counter[str] = Counter()
        self.said: dict[str, str] = {}
        self.measured_from = self.ends = 0.0
        self._told = told
        self._next = self._in_time = 0
        self._due: deque[float] = deque()
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def run(self) -> Measured:
        import numpy as np

        await asyncio.gather(*[self._connect() for _ in range(self.load.connections)])
        started = time.perf_counter()
        self.measured_from = started + self.load.warmup_seconds
        self.ends = self.measured_from + self.load.seconds
        if self.load.rate:
            await self._at_a_rate(started)
        else:
            for connection in self._take_idle():
                connection.ask(time.perf_counter())
            while (now := time.perf_counter()) < self.ends:
                self._told(now - started, len(self.latencies))
                await asyncio.sleep(min(0.2, self.ends - now))
        await self._last_answers()
        if not self.latencies and not self.faults:
            self.faults[NEVER_DUE] = 1
        return Measured(
            np.sort(np.array(self.latencies)), dict(self.faults), self.load.seconds, self._in_time, self.said
        )

    async def _at_a_rate(self, started: float) -> None:
        sent = 0
        while (now := time.perf_counter()) < self.ends:
            until = max(sent, int((now - started) * self.load.rate))
            for number in range(sent, until):
                if self._idle:  # that the clock ticks coarsely is not the gateway's fault: it is due now
                    self._idle.pop().ask(now)
                else:
                    self._due.append(started + number / self.load.rate)
            sent = until
            self._told(now - started, len(self.latencies))
            await asyncio.sleep(_TICK_SECONDS)
        self.faults.update({NEVER_SENT: len(self._due)} if self._due else {})

    async def _last_answers(self) -> None:
        """Wait for what is under way; what does not come counts as a fault."""
        limit = time.perf_counter() + _LAST_ANSWERS_SECONDS
        while any(one.waiting for one in self._all) and time.perf_counter() < limit:
            await asyncio.sleep(_TICK_SECONDS)
        for task in self._reconnecting:
            task.cancel()
        missing = sum(one.waiting for one in self._all)
        self.faults.update({"no answer": missing} if missing else {})
        for connection in list(self._all):
            connection.close()

    def _take_idle(self) -> list[_Connection]:
        taken, self._idle = self._idle, []
        return taken

    async def _connect(self) -> None:
        address, loop = self.load.address, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if address.socket_path:
                    _, made = await loop.create_unix_connection(lambda: _Connection(self), address.socket_path)
                else:
                    secure = ssl.create_default_context() if address.scheme == "https" else None
                    _, made = await loop.create_connection(
                        lambda: _Connection(self), address.host, address.port, ssl=secure
                    )
        except OSError as error:  # a timeout is one
            raise Unavailable(
                f"{address} takes no connection: {str(error) or f'none within {_CONNECT_SECONDS:g} seconds'}",
                remedy=reach_remedy(error),
            ) from error
        self._all.add(made)
        self._idle.append(made)

    def next_request(self) -> bytes:
        """The bodies in turn."""
        self._next = (self._next + 1) % len(self.requests)
        return self.requests[self._next]

    def answered(self, connection: _Connection, status: int, asked: float) -> None:
        """Count an answer, and give the connection what is next."""
        now = time.perf_counter()
        if now >= self.measured_from and asked < self.ends:
            if status < 300:
                self.latencies.append(now - asked)
                self._in_time += now < self.ends
            else:
                self.faults[fault := f"HTTP {status}"] += 1
                if fault not in self.said:
                    self.said[fault] = connection.refusal()
        if not connection.is_open:
            return
        if not self.load.rate:
            if now < self.ends:
                connection.ask(now)
        elif self._due and now < self.ends:
            connection.ask(self._due.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """Count what was under way, and open another in its place."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.waiting:
            self.faults["connection lost"] += 1
        if time.perf_counter() < self.ends:
            task = asyncio.create_task(self._replace())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    async def _replace(self) -> None:
        while time.perf_counter() < self.ends:
            try:
                await self._connect()
            except Unavailable:
                self.faults["connection refused"] += 1
                await asyncio.sleep(0.1)
                continue
            if not self.load.rate:
                for connection in self._take_idle():
                    connection.ask(time.perf_counter())
            return


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._asked = 0.0
        self._came = b""
        self.waiting = False
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, due: float) -> None:
        """Send a request that was due at ``due``, on the clock of ``perf_counter``."""
        self._asked, self.waiting = due, True
        self._transport.write(self._generator.next_request())

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._came = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._generator.faults["no HTTP"] += 1
            self.waiting = False  # it is counted
            self.close()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.waiting = False
        if not self._parser.should_keep_alive():
            self.close()
        self._generator.answered(self, self._parser.get_status_code(), self._asked)

    def refusal(self) -> str:
        """What the answer says that has just come, as far as its last piece has it."""
        _, _, body = self._came.rpartition(b"\r\n\r\n")
        return refusal(self._parser.get_status_code(), body, {}).message

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        del exc
        self.is_open = False
        self._generator.lost(self)

    def close(self) -> None:
        """End it."""
        self.is_open = False
        self._transport.close()


def _request(load: Load, body: bytes) -> bytes:
    """The request on the wire."""
    host = "localhost" if load.address.socket_path else load.address.authority
    headers = {
        "host": host,
        "user-agent": "noria-bench",
        "content-type": "application/json",
        **load.headers,
        "content-length": str(len(body)),
    }
    request = f"POST {load.address.prefix}{load.path} HTTP/1.1"
    lines = [request, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
