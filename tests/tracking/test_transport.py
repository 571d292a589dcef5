"""HTTP to a server that stumbles: what is asked again, what is not, and who we say we are."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from noria.errors import InvalidConfig, NotFound, PolicyRefused, Unavailable
from noria.tracking.transport import Transport


class Stumbling(BaseHTTPRequestHandler):
    """Answers what its server's ``script`` says, in order, then an empty object for ever; "drop" hangs up."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.path, dict(self.headers), body, self.client_address))
        status, answer = self.server.script.pop(0) if self.server.script else (200, "{}")
        if status == "drop":
            self.close_connection = True
            return
        content = answer.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) + (9 if status == 200 and answer == "short" else 0)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = answer == "short"

    do_GET = do_PUT = do_POST

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stumbling)
    server.script, server.seen = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def transport(server):
    transport = Transport(f"http://127.0.0.1:{server.server_port}/team/", {})
    yield transport
    transport.close()


def test_a_lost_connection_and_a_busy_server_are_asked_again(server, transport):
    server.script = [("drop", ""), (503, "{}"), (502, "<html>"), (200, '{"a": 1}')]
    assert transport.call("POST", "/log", {"x": float("inf")}) == {"a": 1}
    assert [path for path, *_ in server.seen] == ["/team/log"] * 4
    assert json.loads(server.seen[-1][2]) == {"x": "Infinity"}


def test_what_may_have_been_created_is_not_created_again(server, transport):
    server.script = [("drop", "")]
    with pytest.raises(Unavailable, match="does not answer"):
        transport.call("POST", "/create", {}, repeatable=False)
    assert len(server.seen) == 1
    server.script = [(429, "{}")]
    assert transport.call("POST", "/create", {}, repeatable=False) == {}


def test_one_connection_serves_many_calls_also_after_a_refusal(server, transport):
    server.script = [(200, "{}"), (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}')]
    transport.call("GET", "/a", {})
    with pytest.raises(NotFound, match="no run"):
        transport.call("GET", "/b", {})
    transport.call("GET", "/c", {})
    assert len({address for *_, address in server.seen}) == 1


def test_a_server_that_is_not_there_is_said_so_after_the_last_attempt():
    transport = Transport("http://127.0.0.1:9", {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"})
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        transport.call("POST", "/create", {}, repeatable=False)


def test_a_slow_server_is_not_waited_for_longer_than_said(server):
    slow = threading.Event()
    server.RequestHandlerClass = type("Slow", (Stumbling,), {"do_POST": lambda _: slow.wait(10)})
    limits = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "0.1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    transport = Transport(f"http://127.0.0.1:{server.server_port}", limits)
    with pytest.raises(Unavailable, match="timed out"):
        transport.call("POST", "/log", {})
    slow.set()


def test_a_broken_download_begins_anew_and_an_upload_arrives_whole(server, transport, tmp_path):
    server.script = [(200, "short"), (200, "whole")]
    transport.download("/file", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "whole"
    content = bytes(range(256)) * 10_000
    (tmp_path / "big").write_bytes(content)
    server.script = [("drop", "")]
    transport.upload("/a b", tmp_path / "big")
    assert (server.seen[-1][0], server.seen[-1][2] == content) == ("/team/a%20b", True)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"NORIA_TOKEN": "n", "MLFLOW_TRACKING_TOKEN": "t"}, "Bearer n"),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        (
            {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pw", "MLFLOW_TRACKING_TOKEN": "t"},
            "Basic " + base64.b64encode(b"ann:pw").decode(),
        ),
    ],
)
def test_it_says_who_it_is_as_mlflow_clients_do(server, environment, expected):
    transport = Transport(f"http://127.0.0.1:{server.server_port}", environment)
    transport.call("GET", "/a", {})
    transport.close()
    assert server.seen[0][1].get("Authorization") == expected


def test_refusals_become_the_errors_of_the_house(server, transport):
    text = "policy refuses it\n  - tag is missing\n  - auc too low\nMeet every condition."
    server.script = [(403, json.dumps({"error_code": "PERMISSION_DENIED", "message": text})), (401, "who are you")]
    with pytest.raises(PolicyRefused) as refusal:
        transport.call("POST", "/move", {})
    assert (refusal.value.message, refusal.value.details) == ("policy refuses it", ("tag is missing", "auc too low"))
    assert refusal.value.remedy == "Meet every condition."
    with pytest.raises(InvalidConfig, match="NORIA_TOKEN"):
        transport.call("POST", "/move", {})


def test_what_is_no_tracking_server_is_said_so(server, transport):
    server.script = [(200, "<html>hello")]
    with pytest.raises(Unavailable, match="no tracking server"):
        transport.call("GET", "/a", {})
