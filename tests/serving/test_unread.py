"""Clients that ask and take nothing of their answers, or ask by half: they cost little, and hold up no end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
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


async def _end_one_of_two() -> None:
    """Of two answers each longer than a client's window at first, the second alone is taken on."""
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
    frames, events = H2Connection(H2Configuration(client_side=True)), []

    async def until(come: Callable[[], bool]) -> None:
        writer.write(frames.data_to_send())
        while not come():
            more = await reader.read(65_536)
            assert more, events
            events.extend(frames.receive_data(more))
            writer.write(frames.data_to_send())

    def taken() -> int:
        return sum(len(one.data) for one in events if isinstance(one, DataReceived))

    def ends() -> list[tuple[type, int]]:
        return [(type(one), one.stream_id) for one in events if isinstance(one, StreamReset | StreamEnded)]

    frames.initiate_connection()
    frames.increment_flow_control_window(2**20)
    for number in (1, 3):
        head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
        frames.send_headers(number, head, end_stream=True)
    await until(lambda: taken() == 2 * 65_535)
    made[0].end_unread(1, 60)
    frames.increment_flow_control_window(10_000, 3)
    await until(lambda: taken() == 2 * 65_535 + 10_000)
    made[0].end_unread(62, 60)
    await until(lambda: bool(ends()))
    frames.increment_flow_control_window(2**20, 3)
    await until(lambda: len(ends()) == 2)
    assert ends() == [(StreamReset, 1), (StreamEnded, 3)]
    writer.close()
    server.close()


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
        assert 1 < time.monotonic() - started < 15  # none of it is lost at once, either


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
