"""The load generator against servers that answer slowly, or no HTTP: what it counts, and how often."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from noria.client.address import Address
from noria.client.load import Load, measure

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextmanager
def server(answer: bytes, seconds: float) -> Iterator[str]:
    """Answers every request after so many seconds; its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                while self.request.recv(65_536):
                    time.sleep(seconds)
                    self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def load(url: str, **more: object) -> Load:
    options = {"connections": 4, "seconds": 1.0, "warmup_seconds": 0.0} | more
    return Load(Address.of(url), "/predict", [b"{}"], **options)  # type: ignore[arg-type]


def test_answers_that_came_too_late_are_no_throughput():
    with server(ANSWER, 0.7) as url:
        measured = measure(load(url))
    assert len(measured.latencies) == 8 and measured.in_time == 4 and measured.per_second == 4
    assert measured.percentile(100) == pytest.approx(0.7, abs=0.2)


def test_percentiles_are_answers_that_there_were():
    with server(ANSWER, 0.0) as url:
        measured = measure(load(url, seconds=0.3))
    sizes, count = np.sort(measured.latencies), len(measured.latencies)
    for percent in (50, 90, 99, 99.9, 100):
        assert measured.percentile(percent) == sizes[int(np.ceil(percent / 100 * count)) - 1]


def test_what_is_no_http_is_counted_once():
    with server(b"hello\r\n\r\n", 0.01) as url:
        measured = measure(load(url, seconds=0.3))
    assert set(measured.faults) == {"no HTTP"}
