"""A single row is answered alike however its request arrives: whole, in pieces, behind another, or asking for more."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serving.pool import REQUEST, Pool

BODY = json.dumps(REQUEST).encode()


@pytest.fixture(scope="module")
def port(trained: Path) -> Iterator[int]:
    pool = Pool(trained, "--port", "0")
    yield pool.port
    pool.stop()


def request(body: bytes = BODY, path: str = "/predict", version: str = "1.1", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: here\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """One connection, with the answers that come by it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()
        self._socket.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def say_all(self) -> None:
        """Send no more, and read on."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers in lower case, and the document."""
        status = int(self._read.readline().split()[1])
        lines = iter(self._read.readline, b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        return status, headers, json.loads(self._read.read(length)) if length else None

    @property
    def rest(self) -> bytes:
        """What comes until the server ends the connection."""
        return self._read.read()


def asked(port: int, *parts: bytes) -> tuple[int, Any]:
    with Connection(port) as connection:
        connection.send(*parts)
        status, _, document = connection.answer()
    document.pop("prediction_id", None)
    return status, document


@pytest.mark.parametrize("cuts", [[10], [60], [-1], [-len(BODY)], [30, -len(BODY) - 2, -len(BODY), -5]])
def test_a_request_in_pieces_is_answered_as_one_that_is_whole(port, cuts):
    whole = request()
    places = [0, *(cut % len(whole) for cut in cuts), len(whole)]
    with Connection(port) as connection:
        for start, end in pairwise(places):
            connection.send(whole[start:end])
        status, _, document = connection.answer()
        document.pop("prediction_id")
        assert (status, document) == asked(port, whole)
        connection.send(whole)
        assert connection.answer()[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        request(path="/predict?from=here"),
        request(path="/%70redict"),
        request(path="/models/demand/predict"),
        request(version="1.0"),
        request(headers="Connection: close\r\n"),
        request(headers="timeout: 5\r\n"),
        request().replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked").removesuffix(BODY)
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    ],
    ids=["query", "escaped", "named", "1.0", "close", "timeout", "chunked"],
)  # fmt: skip
def test_what_is_asked_in_another_way_gets_the_same_answer(port, sent):
    assert asked(port, sent) == asked(port, request())


def test_answers_follow_each_other_in_the_order_of_their_requests(port):
    rows = [json.dumps({**REQUEST, "prediction_id": f"row-{number}"}).encode() for number in range(6)]
    sent = [request(row) for row in rows]
    sent[3] = request(b'{"instances": [%b]}' % rows[3])
    with Connection(port) as connection:
        connection.send(b"".join(sent))
        documents = [connection.answer()[2] for _ in sent]
    documents[3] = documents[3]["predictions"][0]
    assert [one["prediction_id"] for one in documents] == [f"row-{number}" for number in range(6)]


def test_a_bad_row_spoils_no_other_of_its_connection(port):
    bad = [b"{", b"[]", b"{}", b'{"features": {"x": 1}}', b'{"event_time": "soon"}', b"[" * 5000]
    with Connection(port) as connection:
        for body in bad:
            connection.send(request(body))
            status, headers, document = connection.answer()
            assert (status, headers["content-type"]) == (400, "application/problem+json"), body
            assert document["code"] == "invalid_input"
            connection.send(request())
            assert connection.answer()[0] == 200


def test_a_client_that_waits_for_leave_to_go_on_gets_it(port):
    head = request(headers="Expect: 100-continue\r\n").removesuffix(BODY)
    with Connection(port) as connection:
        connection.send(head)
        assert connection.answer()[0] == 100
        connection.send(BODY)
        assert connection.answer()[0] == 200


@pytest.mark.parametrize(("version", "headers"), [("1.1", "Connection: close\r\n"), ("1.0", "")])
def test_the_connection_ends_when_the_client_wants_it_to(port, version, headers):
    with Connection(port) as connection:
        connection.send(request(version=version, headers=headers))
        status, found, _ = connection.answer()
        assert (status, found["connection"]) == (200, "close") and not connection.rest


ROW, ROWS = request(), request(b'{"instances": [%b]}' % BODY)
HEALTH = b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [[ROW], [ROWS], [HEALTH], [ROW] * 9, [ROWS] * 9, [ROW, ROWS, HEALTH] * 5],
    ids=["row", "rows", "health", "9 rows", "9 times rows", "all"],
)
def test_a_client_that_asks_for_no_more_gets_all_its_answers_and_then_the_end(port, sent):
    with Connection(port) as connection:
        connection.send(b"".join(sent))
        connection.say_all()
        for _ in sent:
            assert connection.answer()[0] == 200
        assert connection.rest == b""


@pytest.mark.parametrize("sent", [b"", ROW[:50], ROW[:-3], ROWS[:-3]])
def test_a_client_that_ends_within_a_request_ends_the_connection(port, sent):
    with Connection(port) as connection:
        connection.send(sent)
        connection.say_all()
        assert connection.rest == b""


def test_clients_that_leave_before_they_are_answered_hold_up_nobody(port):
    for _ in range(50):
        with Connection(port) as connection:
            connection.send(request(), request()[:80])
    assert asked(port, request())[0] == 200


def test_what_follows_a_request_and_is_none_ends_the_connection(port):
    with Connection(port) as connection:
        connection.send(request() + b"no request\r\n\r\n")
        assert re.findall(rb"HTTP/1.1 (\d+)", connection.rest) == [b"200", b"400"]
    assert asked(port, request())[0] == 200
