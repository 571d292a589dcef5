"""A lean HTTP client that plays requests against a gateway over kept-alive connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from noria.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many requests were sent, how many were not answered with 200, and the first such answer."""

    sent: int
    failed: int
    first_failure: str = ""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.sent + other.sent, self.failed + other.failed, self.first_failure or other.first_failure)


class Traffic:
    """Sends POST requests over a fixed number of connections. Use from one event loop."""

    def __init__(self, url: str, connections: int = 32) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._connections = connections
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Connect. Raises Unavailable when nobody listens."""
        try:
            self._streams = [await asyncio.open_connection(self._host, self._port) for _ in range(self._connections)]
        except OSError as error:
            raise Unavailable(
                f"no gateway answers at {self._host}:{self._port}: {error}", remedy="Start one with `noria serve`."
            ) from error

    async def post(self, path: str, bodies: Sequence[bytes]) -> Outcome:
        """Send every body to ``path``, each as a request of its own, and count the answers."""
        queue = iter(bodies)
        outcomes = await asyncio.gather(
            *(self._send(path, queue, reader, writer) for reader, writer in self._streams[: len(bodies)])
        )
        return sum(outcomes, Outcome(0, 0))

    async def close(self) -> None:
        """Close all connections."""
        for _, writer in self._streams:
            writer.close()
        self._streams = []

    async def _send(
        self, path: str, bodies: Iterable[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Outcome:
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\nContent-Length: "
        start = head.encode()
        sent = failed = 0
        first = ""
        for body in bodies:
            writer.write(b"%s%d\r\n\r\n%s" % (start, len(body), body))
            status, answer = await _read_answer(reader)
            sent += 1
            if status != 200:
                failed += 1
                first = first or f"{status}: {answer[:500].decode(errors='replace')}"
        return Outcome(sent, failed, first)


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return int(head[9:12]), await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise Unavailable(
            "the gateway closed the connection in the middle of a request",
            remedy="Run the same command again with --resume: finished days are not repeated.",
        ) from error
