"""HTTP/2: the same answers as over HTTP/1.1, many at once on one connection, and an end that loses none."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated

from serving.pool import REQUEST, Pool, made_certificate
from support import require

LIMIT = {"NORIA_GATEWAY__LARGEST_BODY_MIB": "1"}


@pytest.fixture(scope="module")
def port(trained: Path) -> Iterator[int]:
    pool = Pool(trained, "--port", "0", **LIMIT)
    yield pool.port
    pool.stop()


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", http1=False, http2=True, timeout=30) as found:
        yield found


def test_requests_of_every_kind_are_answered_as_over_http_1(client, port):
    many = {"instances": [REQUEST] * 300}
    asked = [
        ("POST", "/predict", REQUEST), ("POST", "/predict", {"features": {}}), ("POST", "/predict?a=1", REQUEST),
        ("POST", "/models/demand/predict", REQUEST), ("GET", "/model/info", None), ("GET", "/nowhere", None),
        ("DELETE", "/predict", None), ("HEAD", "/health", None), ("GET", "/metrics", None), ("POST", "/predict", many),
    ]  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as plain:
        for method, path, body in asked:
            one, other = client.request(method, path, json=body), plain.request(method, path, json=body)
            assert (one.http_version, other.http_version) == ("HTTP/2", "HTTP/1.1")
            assert one.status_code == other.status_code, path
            assert one.headers["content-type"] == other.headers["content-type"] if other.content else True
            if path == "/predict" and one.status_code == 200:
                assert _without_ids(one.json()) == _without_ids(other.json())


def test_a_body_that_is_too_large_is_refused_before_it_has_come(client):
    for _ in range(3):
        answer = client.post("/predict", content=b" " * 2**22)
        assert (answer.status_code, answer.http_version) == (413, "HTTP/2")
        assert client.post("/predict", json=REQUEST).status_code == 200


def _without_ids(document: dict[str, object]) -> str:
    rows = document.get("predictions", [document])
    return json.dumps([{key: value for key, value in row.items() if key != "prediction_id"} for row in rows])


def test_a_hundred_requests_share_one_connection_and_each_gets_its_own_answer(port):
    async def ask() -> list[str]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", http1=False, http2=True) as client:
            asked = [client.post("/predict", json={**REQUEST, "prediction_id": f"row-{n}"}) for n in range(300)]
            return [answer.json()["prediction_id"] for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [f"row-{n}" for n in range(300)]


def test_a_large_body_and_a_large_answer_go_through_small_windows(client):
    rows = [{**REQUEST, "prediction_id": f"row-{n:0>150}"} for n in range(3_000)]
    answer = client.post("/predict", json={"instances": rows}, headers={"accept-encoding": "identity"})
    assert len(answer.content) > 500_000
    assert [row["prediction_id"] for row in answer.json()["predictions"]] == [row["prediction_id"] for row in rows]


def test_curl_speaks_it_with_prior_knowledge(port):
    require(shutil.which("curl"), "curl", "apt-get install curl")
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    require("HTTP2" in version, "HTTP/2 in curl", "use the curl of a distribution")
    command = ["curl", "--silent", "--http2-prior-knowledge", "--write-out", "%{http_version} %{http_code}"]
    done = subprocess.run(
        [*command, "--output", "/dev/null", f"http://127.0.0.1:{port}/health"], capture_output=True, text=True
    )
    assert done.stdout == "2 200"


def test_over_tls_the_client_chooses(trained, tmp_path):
    certificate, settings = made_certificate(tmp_path)
    pool = Pool(trained, "--port", "0", **settings)
    trust = ssl.create_default_context(cafile=str(certificate))
    for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        with httpx.Client(base_url=f"https://localhost:{pool.port}", verify=trust, http2=http2) as client:
            answer = client.post("/predict", json=REQUEST)
            assert (answer.status_code, answer.http_version) == (200, version)
    pool.stop()


class Raw:
    """A connection whose frames the test chooses."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.frames = H2Connection(H2Configuration())
        self.frames.initiate_connection()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, number: int, *, ends: bool) -> None:
        head = [(":method", "POST"), (":path", "/predict"), (":authority", "here"), (":scheme", "http")]
        self.frames.send_headers(number, head, end_stream=ends)

    def send(self) -> None:
        self.socket.sendall(self.frames.data_to_send())

    def read_until_terminated(self) -> bool:
        """Whether the server said goodbye before it closed the connection."""
        said = False
        while data := self.socket.recv(65536):
            said |= any(isinstance(event, ConnectionTerminated) for event in self.frames.receive_data(data))
        return said


def test_a_client_that_keeps_taking_requests_back_is_sent_away(port, client):
    with Raw(port) as raw:
        for number in range(1, 1001, 2):
            raw.ask(number, ends=False)
            raw.frames.reset_stream(number)
        raw.send()
        assert raw.read_until_terminated()
    assert client.post("/predict", json=REQUEST).status_code == 200


def test_bodies_that_are_taken_back_leave_their_room_to_others(port):
    with Raw(port) as raw:
        for number in range(1, 201, 2):
            raw.ask(number, ends=False)
            raw.frames.send_data(number, b" " * 2**14)
            raw.send()
            raw.frames.reset_stream(number)
            raw.send()
            while raw.frames.outbound_flow_control_window < 2**15:
                raw.frames.receive_data(raw.socket.recv(65536))


def test_what_is_no_frame_ends_the_connection_and_no_other(port, client):
    with Raw(port) as raw:
        raw.send()
        raw.socket.sendall(b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x")  # a body of no request
        assert raw.read_until_terminated()
    for _ in range(20):  # gone in the middle of a request
        with Raw(port) as raw:
            raw.ask(1, ends=False)
            raw.send()
    assert client.post("/predict", json=REQUEST).status_code == 200


def test_a_gateway_that_ends_answers_what_was_asked_and_says_goodbye(trained):
    pool = Pool(trained, "--port", "0")
    body, seen = json.dumps(REQUEST).encode(), b""
    with Raw(pool.port) as raw:
        raw.ask(1, ends=False)
        raw.frames.send_data(1, body[:5])
        raw.send()
        time.sleep(0.5)
        pool.process.terminate()
        time.sleep(0.5)
        raw.frames.send_data(1, body[5:], end_stream=True)
        raw.send()
        while data := raw.socket.recv(65536):
            seen += data
        names = [type(event).__name__ for event in raw.frames.receive_data(seen)]
    assert "ResponseReceived" in names and "StreamEnded" in names and names[-1] == "ConnectionTerminated"
    pool.stop()
