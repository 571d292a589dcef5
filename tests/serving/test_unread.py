"""Clients that ask and take nothing of their answers, or ask by half: they cost little, and hold up no end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, PingAckReceived, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings

from noria.surface.http.http2 import Http2
from noria.surface.http.unread import Unread
from serving.pool import Pool
from support import resident_megabytes

GET = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture(scope="module")
def pool(trained: Path) -> Iterator[Pool]:
    """A gateway that the last test ends."""
    pool = Pool(trained, "--port", "0")
    yield pool
    if pool.process.poll() is None:
        pool.stop()


class Told(Unread):
    """A connection of which somebody says how much waits."""

    waits = 0

    def left(self) -> int:
        """See ``Unread``."""
        return self.waits


def test_who_takes_nothing_is_told_from_who_takes_little():
    client = Told()
    found = []
    for now, client.waits in enumerate([0, 9000, 9000, 9500, 9400, 9400, 9400, 0, 0, 5], start=10):
        found.append(client.seconds_without_progress(now))
    assert found == [0, 0, 1, 2, 0, 0, 1, 0, 0, 0]


def test_one_stream_whose_answer_is_not_taken_ends_and_no_other():
    asyncio.run(_end_one_of_two())


def test_who_takes_nothing_is_ended_after_a_farewell_too():
    asyncio.run(_end_after_farewell())


class _Http2Client:
    """Asks over HTTP/2 for answers that are each longer than a client's window at first."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.frames, self.events = H2Connection(H2Configuration(client_side=True)), []
        self._reader, self._writer = reader, writer
        self.frames.initiate_connection()
        self.frames.increment_flow_control_window(2**20)

    def ask(self, number: int) -> None:
        head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
        self.frames.send_headers(number, head, end_stream=True)

    async def until(self, come: Callable[[], bool]) -> None:
        self._writer.write(self.frames.data_to_send())
        while not come():
            more = await self._reader.read(65_536)
            assert more, self.events
            self.events.extend(self.frames.receive_data(more))
            self._writer.write(self.frames.data_to_send())

    def taken(self) -> int:
        return sum(len(one.data) for one in self.events if isinstance(one, DataReceived))

    def ends(self) -> list[tuple[type, int]]:
        return [(type(one), one.stream_id) for one in self.events if isinstance(one, StreamReset | StreamEnded)]


@contextlib.asynccontextmanager
async def _spoken() -> AsyncIterator[tuple[Http2, _Http2Client]]:
    made: list[Http2] = []

    async def answer(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(100_000)})

    class Speaking(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(Http2(answer, uvicorn.server.ServerState(), transport, "http"))
            transport.set_protocol(made[0])

    server = await asyncio.get_running_loop().create_server(Speaking, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    client = _Http2Client(reader, writer)
    await client.until(lambda: bool(made))
    yield made[0], client
    writer.close()
    server.close()


async def _end_one_of_two() -> None:
    """The second alone is taken on."""
    async with _spoken() as (connection, client):
        client.ask(1)
        client.ask(3)
        await client.until(lambda: client.taken() == 2 * 65_535)
        connection.end_unread(1, 60)
        client.frames.increment_flow_control_window(10_000, 3)
        await client.until(lambda: client.taken() == 2 * 65_535 + 10_000)
        connection.end_unread(62, 60)
        await client.until(lambda: bool(client.ends()))
        client.frames.increment_flow_control_window(2**20, 3)
        await client.until(lambda: len(client.ends()) == 2)
        assert client.ends() == [(StreamReset, 1), (StreamEnded, 3)]


async def _end_after_farewell() -> None:
    """No more than a farewell may be sent then; the look at it goes on to the other connections."""
    async with _spoken() as (connection, client):
        client.ask(1)
        await client.until(lambda: client.taken() == 65_535)
        client.frames.close_connection()
        connection.data_received(client.frames.data_to_send())
        connection.end_unread(1, 60)
        connection.end_unread(62, 60)
        while not connection.transport.is_closing():
            await asyncio.sleep(0)


def test_requests_sent_ahead_are_answered_wherever_their_bytes_are_cut(pool):
    with socket.create_connection(("127.0.0.1", pool.port), timeout=20) as client:
        client.sendall(GET * 4_000 + b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert client.makefile("rb").read().count(b"HTTP/1.1 200 OK") == 4_001


def test_requests_sent_ahead_without_end_are_not_read_ahead_without_end(pool):
    before = resident_megabytes(pool.process.pid)
    with _asked_over_http_1(pool.port):
        assert resident_megabytes(pool.process.pid) < before + 100


def test_a_process_alone_goes_on_where_workers_would_be_replaced(pool):
    pool.tell(signal.SIGHUP, "reload_passed_over")
    assert httpx.get(f"http://127.0.0.1:{pool.port}/health").status_code == 200


def test_who_never_reads_or_asks_by_half_does_not_hold_up_the_end(pool):
    asked = _asked_over_http_1(pool.port), _asked_over_http_2(pool.port)
    with asked[0], asked[1], _half_asked_over_http_1(pool.port), _half_asked_over_http_2(pool.port):
        started = time.monotonic()
        pool.stop()
    assert time.monotonic() - started > 1  # none of it is lost at once
    assert "library_said" not in pool.said  # that the server gave up waiting


def _asked_over_http_1(port: int) -> socket.socket:
    """A client whose answers find no more room."""
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        for _ in range(40):
            client.sendall(GET * 30_000)
    return client


def _asked_over_http_2(port: int) -> socket.socket:
    """A client that allows no byte of a body to be sent."""
    client, frames = socket.create_connection(("127.0.0.1", port)), H2Connection(H2Configuration(client_side=True))
    frames.local_settings = Settings(initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 0})
    frames.initiate_connection()
    head = [(":method", "GET"), (":path", "/health"), (":scheme", "http"), (":authority", "a")]
    frames.send_headers(1, head, end_stream=True)
    client.sendall(frames.data_to_send())
    while not any(isinstance(event, ResponseReceived) for event in frames.receive_data(client.recv(65536))):
        pass
    return client


def _half_asked_over_http_1(port: int) -> socket.socket:
    """A client that sends a part of what it announced."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
    return client


def _half_asked_over_http_2(port: int) -> socket.socket:
    """The same over HTTP/2; what it sent is there once its ping is answered."""
    client, frames = socket.create_connection(("127.0.0.1", port)), H2Connection(H2Configuration(client_side=True))
    frames.initiate_connection()
    frames.send_headers(1, [(":method", "POST"), (":path", "/predict"), (":scheme", "http"), (":authority", "a")])
    frames.ping(b"all came")
    client.sendall(frames.data_to_send())
    while not any(isinstance(event, PingAckReceived) for event in frames.receive_data(client.recv(65536))):
        pass
    return client
