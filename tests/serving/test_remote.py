"""Models on another server: what it does wrong is its fault, and told as that."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.errors import Unavailable
from noria.optimize.bundle import Bundle, TensorSpec
from noria.serving.runtimes import remote
from noria.serving.runtimes.remote import RemoteRuntime

PIECE = b" " * 2**16


class Answers(BaseHTTPRequestHandler):
    """Answers as the model's name says: a number of rows, ``endless``, ``drip``, ``header`` or ``half``."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        how = self.path.split("/")[3]
        if how in ("endless", "drip", "header"):
            self._go_on(how)
        elif how == "half":
            self._say(self._outputs(["\ud800", "b"], "BYTES"))
        else:
            self._say(self._outputs([1.5] * int(how), "FP64"))

    def _outputs(self, values: list[Any], datatype: str) -> dict[str, Any]:
        return {"outputs": [{"name": "y", "datatype": datatype, "shape": [len(values)], "data": values}]}

    def _say(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
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
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.ending = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.ending.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def asked(upstream: str, how: str, seconds: float = 30.0) -> Any:
    """What a model there says to two rows."""
    options = {"url": upstream, "model": how, "seconds": seconds, "key_variable": ""}
    bundle = Bundle("generic", tensors=(TensorSpec("x", "FP64", (-1, 2)),), runtime="remote", options=options)
    runtime = RemoteRuntime(Path(), bundle)
    try:
        return runtime.infer({"x": np.zeros((2, 2))})["y"].tolist()
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
    with pytest.raises(Unavailable, match="timed out"):
        asked(upstream, how, seconds=0.2)


def test_half_a_character_is_no_answer(upstream):
    with pytest.raises(Unavailable, match="answered no JSON"):
        asked(upstream, "half")
