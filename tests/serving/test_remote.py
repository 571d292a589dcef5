"""Models on another server: what it does wrong is its fault, and told as that."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest

from noria.errors import InvalidInput, NoriaError, Overloaded, Unavailable
from noria.optimize.bundle import Bundle, TensorSpec
from noria.serving.runtimes import remote
from noria.serving.runtimes.base import Rows
from noria.serving.runtimes.remote import RemoteRuntime

PIECE = b" " * 2**16


class Answers(BaseHTTPRequestHandler):
    """Answers as the model's name says: a number of rows, ``endless``, ``drip``, ``header``, ``half``, ``busy``,
    ``key``, ``moved`` or ``cut``.

    A name that is JSON is the answer itself, and so is a prompt; ``once`` answers once, and then
    ends the connection; ``closing`` ends it behind every answer.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(body)  # type: ignore[attr-defined]
        how = unquote(self.path.split("/", 3)[3].removesuffix("/infer"))
        if how == "completions":
            self._say(json.loads(json.loads(body)["messages"][0]["content"]))
        elif how.startswith("{"):
            self._say(json.loads(how))
        elif how == "busy":
            self._say({"error": "later"}, 429, {"Retry-After": "7"})
        elif how == "key":
            self._say({"error": f"who is {self.headers['Authorization']}?"}, 401)
        elif how == "moved":
            self._say({}, 307, {"Location": "https://elsewhere/v2"})
        elif how == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}")
            self.close_connection = True
        elif how == "once" and len(self.server.asked) > 1:  # type: ignore[attr-defined]
            self.close_connection = True
        elif how == "closing":
            self._say(self._outputs([1.5, 1.5], "FP64"))
            self.close_connection = True
        elif how in ("endless", "drip", "header"):
            self._go_on(how)
        elif how == "half":
            self._say(self._outputs(["\ud800", "b"], "BYTES"))
        else:
            self._say(self._outputs([1.5] * (2 if how == "once" else int(how)), "FP64"))

    def _outputs(self, values: list[Any], datatype: str) -> dict[str, Any]:
        return {"outputs": [{"name": "y", "datatype": datatype, "shape": [len(values)], "data": values}]}

    def _say(self, answer: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _go_on(self, how: str) -> None:
        """Until the client has had enough."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X: " if how == "header" else b"\r\n"))
        piece, pause = (PIECE, 0.0) if how == "endless" else (b" ", 0.02)
        try:
            while not self.server.ending.wait(pause):  # type: ignore[attr-defined]
                self.wfile.write(piece)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.ending = threading.Event()  # type: ignore[attr-defined]
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.ending.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def upstream(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def runtime_of(upstream: str, how: str, seconds: float = 30.0, key_variable: str = "") -> RemoteRuntime:
    options = {"url": upstream, "model": quote(how, safe=""), "seconds": seconds, "key_variable": key_variable}
    bundle = Bundle("generic", tensors=(TensorSpec("x", "FP64", (-1, 2)),), runtime="remote", options=options)
    return RemoteRuntime(Path(), bundle)


def asked(upstream: str, how: str, seconds: float = 30.0, x: Any = ((0, 0), (0, 0))) -> Any:
    """What a model there says to two rows."""
    runtime = runtime_of(upstream, how, seconds)
    try:
        return runtime.infer({"x": np.array(x, dtype=np.float64)})["y"].tolist()
    finally:
        runtime.unload()


def output(datatype: str, data: Any, shape: Any = (2,)) -> str:
    """The answer with one output y, as a model's name."""
    return json.dumps({"outputs": [{"name": "y", "datatype": datatype, "shape": shape, "data": data}]})


def said(upstream: str, choice: Mapping[str, Any]) -> Any:
    """What a chat completion with that choice becomes."""
    runtime = runtime_of(upstream, "chat")
    prompt = np.array([[json.dumps({"choices": [choice]})]], dtype=object)
    try:
        return runtime.score(Rows(np.empty((1, 0)), prompt))
    finally:
        runtime.unload()


def test_one_entry_a_row_is_an_answer(upstream):
    assert asked(upstream, "2") == [1.5, 1.5]


@pytest.mark.parametrize("rows", ["0", "1", "3"])
def test_an_answer_with_fewer_or_more_rows_is_none(upstream, rows):
    with pytest.raises(Unavailable, match=rf"answered 2 rows with 'y' of shape \[{rows}\]"):
        asked(upstream, rows)


def test_an_answer_is_read_up_to_a_bound(upstream, monkeypatch):
    monkeypatch.setattr(remote, "_LARGEST_ANSWER_BYTES", 2**20)
    with pytest.raises(Unavailable, match="answers more than 1 MiB"):
        asked(upstream, "endless")


@pytest.mark.parametrize("how", ["drip", "header"])
def test_an_answer_that_comes_bit_by_bit_has_no_more_time_than_another(upstream, how):
    with pytest.raises(Unavailable, match=r"did not answer in 0\.2 seconds"):
        asked(upstream, how, seconds=0.2)


@pytest.mark.parametrize(
    ("how", "said"), [("moved", "answered 307, and refers to https://elsewhere/v2"), ("cut", "broke off its answer")]
)
def test_what_became_of_an_answer_is_told(upstream, how, said):
    with pytest.raises(Unavailable, match=said):
        asked(upstream, how)


def test_a_key_that_the_other_server_repeats_is_told_to_nobody_and_may_end_a_line(upstream, monkeypatch):
    runtime = runtime_of(upstream, "key", key_variable="REMOTE_KEY")
    monkeypatch.setenv("REMOTE_KEY", "sekrit-1\n")
    with pytest.raises(Unavailable, match=r"answered 401: .*who is Bearer \(the key\)\?"):
        runtime.infer({"x": np.zeros((1, 2))})
    monkeypatch.setenv("REMOTE_KEY", "sekrit\n-1")
    with pytest.raises(Unavailable, match="has characters that no header holds"):
        runtime.infer({"x": np.zeros((1, 2))})
    runtime.unload()


def test_half_a_character_is_no_answer(upstream):
    with pytest.raises(Unavailable, match="answered no JSON"):
        asked(upstream, "half")


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT64", [1.9, 1]),
        ("INT64", ["3", "4"]),
        ("INT64", [None, 1]),
        ("INT64", [2**63, 1]),
        ("INT64", [True, False]),
        ("UINT8", [300, 1]),
        ("UINT8", [-1, 1]),
        ("BOOL", [5, 1]),
        ("FP64", ["1.5", 1]),
        ("FP64", [10**400, 1]),
        ("FP32", [1e300, 1]),
        ("BYTES", [1, 2]),
        ("BF16", [1, 2]),
        ("FP64", [[1], [2]]),
        ("FP64", [[1], [2, 3]]),
        ("FP64", 1),
    ],
)
def test_values_that_a_datatype_has_not_are_no_answer_and_not_altered(upstream, datatype, data):
    with pytest.raises(Unavailable, match="not as its protocol has it"):
        asked(upstream, output(datatype, data))


@pytest.mark.parametrize("shape", [[-1], [3], ["2"], [2**70], None, [True, 2]])
def test_a_shape_that_the_values_have_not_is_no_answer(upstream, shape):
    with pytest.raises(Unavailable, match="not as its protocol has it"):
        asked(upstream, output("FP64", [1, 2], shape))


@pytest.mark.parametrize(
    ("datatype", "data", "shape", "expected"),
    [
        ("INT8", [3.0, -128], [2], [3, -128]),
        ("UINT64", [2**64 - 1, 0], [2], [2**64 - 1, 0]),
        ("BOOL", [True, 0], [2], [True, False]),
        ("FP16", [1, 0.5], [2, 1], [[1.0], [0.5]]),
        ("FP32", [[1, 2], [3, 4]], [2, 2], [[1.0, 2.0], [3.0, 4.0]]),
        ("BYTES", ["a", ""], [2], ["a", ""]),
    ],
)
def test_values_are_taken_flat_or_nested_where_their_datatype_has_them(upstream, datatype, data, shape, expected):
    assert asked(upstream, output(datatype, data, shape)) == expected


def test_a_missing_number_is_null_both_ways(server, upstream):
    first, last = asked(upstream, output("FP64", [None, 2.0]), x=[[np.nan, 1], [2, 3]])
    assert np.isnan(first) and last == 2.0
    (sent,) = server.asked
    assert json.loads(sent, parse_constant=pytest.fail)["inputs"][0]["data"] == [None, 1, 2, 3]
    with pytest.raises(InvalidInput, match="'x' has an infinite number"):
        asked(upstream, "2", x=[[np.inf, 1], [2, 3]])


def test_a_completion_is_its_text_whole_or_in_parts(upstream):
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    for content in ("hello", parts):
        assert said(upstream, {"message": {"content": content}}) == ["hello"]


@pytest.mark.parametrize(
    ("message", "reason", "error"),
    [
        ({"content": None, "refusal": "I will not"}, "stop", InvalidInput),
        ({"content": None}, "content_filter", InvalidInput),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls", InvalidInput),
        ({"content": None}, "length", Unavailable),
        ({"content": 5}, "stop", Unavailable),
        ({"content": []}, "stop", Unavailable),
        ({"content": [{"type": "image_url"}]}, "stop", Unavailable),
    ],
)
def test_a_completion_without_text_is_told_with_the_reason_for_its_end(upstream, message, reason, error):
    with pytest.raises(error, match=f"answered no text .finish_reason '{reason}'"):
        said(upstream, {"message": message, "finish_reason": reason})


@pytest.mark.parametrize("choice", [{"message": None}, {"message": {"content": ["a"]}}, {"message": "text"}, {}])
def test_a_completion_that_is_none_is_told(upstream, choice):
    with pytest.raises(Unavailable, match="not as its protocol has it"):
        said(upstream, choice)


def test_that_it_has_too_much_to_do_is_passed_on_with_the_time_to_wait(upstream):
    with pytest.raises(Overloaded, match="answered 429") as caught:
        asked(upstream, "busy")
    assert caught.value.retry_after == 7


def test_what_was_sent_whole_is_not_sent_again(server, upstream):
    runtime = runtime_of(upstream, "once")
    tensors = {"x": np.zeros((2, 2))}
    assert runtime.infer(tensors)["y"].tolist() == [1.5, 1.5]
    with pytest.raises(NoriaError, match="cannot be reached"):
        runtime.infer(tensors)
    runtime.unload()
    assert len(server.asked) == 2


def test_a_connection_that_ended_meanwhile_is_not_asked(server, upstream):
    runtime = runtime_of(upstream, "closing")
    for _ in range(3):
        assert runtime.infer({"x": np.zeros((2, 2))})["y"].tolist() == [1.5, 1.5]
        (kept,) = _idle(runtime)
        assert kept.recv(1, socket.MSG_PEEK) == b""  # its end has come
    runtime.unload()
    assert len(server.asked) == 3


def _idle(runtime: RemoteRuntime) -> list[socket.socket]:
    """The sockets that are kept."""
    idle = runtime._upstream._idle
    kept = [idle.get() for _ in range(idle.qsize())]
    for connection in kept:
        idle.put(connection)
    return [connection.sock for connection in kept]


def test_params_go_along_as_parameters(server, upstream):
    runtime = runtime_of(upstream, "2")
    for params, sent in [({"k": 3}, {"k": 3}), (None, None)]:
        assert runtime.infer({"x": np.zeros((2, 2))}, params)["y"].tolist() == [1.5, 1.5]
        assert json.loads(server.asked[-1]).get("parameters") == sent
    runtime.unload()
