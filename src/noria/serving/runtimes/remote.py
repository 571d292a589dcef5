"""Models that other servers run: asked by the Open Inference Protocol, or as OpenAI's chat completions."""

from __future__ import annotations

import io
import json
import os
import queue
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from noria.errors import InvalidConfig, InvalidInput, NoriaError, Unavailable
from noria.optimize.bundle import DTYPES, Bundle
from noria.serving.runtimes.base import Floats, Rows, Tensors, decoded

V2, OPENAI = "v2", "openai"
PROTOCOLS = (V2, OPENAI)
PROMPT = "prompt"
_CALLS_AT_ONCE = 32
_LONGEST_TEXT = 300
_LARGEST_ANSWER_BYTES = 32 * 2**20


class Upstream:
    """Connections to another server, kept open; each request may take ``seconds``, its answer 32 MiB.

    ``key_variable`` names the environment variable with its key.
    """

    def __init__(self, url: str, seconds: float, key_variable: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidConfig(f"{url!r} is no address of a server", remedy="Write http://host:port or https://host.")
        self._make: Callable[[], HTTPConnection] = lambda: (
            HTTPSConnection(parts.netloc, timeout=seconds)
            if parts.scheme == "https"
            else HTTPConnection(parts.netloc, timeout=seconds)
        )
        self._base, self._url, self._seconds = parts.path.rstrip("/"), url, seconds
        self._key_variable = key_variable
        self._idle: queue.SimpleQueue[HTTPConnection] = queue.SimpleQueue()

    def ask(self, path: str, document: Mapping[str, Any] | None = None) -> Any:
        """The JSON it answers; a POST with a document, else a GET.

        Raises InvalidInput for what it refuses (4xx), Unavailable when it cannot be reached or fails.
        """
        try:
            status, body = self._exchange(path, None if document is None else json.dumps(document).encode())
        except (OSError, HTTPException) as error:
            raise Unavailable(
                f"{self._url} cannot be reached: {str(error) or type(error).__name__}",
                remedy="Check that it runs and that this machine may reach it.",
            ) from None
        if status >= 400:
            self._refused(status, body)
        try:
            return decoded(body)
        except ValueError:
            raise Unavailable(f"{self._url} answered no JSON", remedy="Check the address and the protocol.") from None

    def close(self) -> None:
        """Close what is open."""
        while not self._idle.empty():
            self._idle.get().close()

    def _exchange(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """One request, again on a new connection when a kept one turns out to be closed."""
        end = time.monotonic() + self._seconds
        while True:
            try:
                connection, kept = self._idle.get_nowait(), True
            except queue.Empty:
                connection, kept = self._make(), False
            try:
                answer = self._send(connection, path, body, end)
                found = answer.status, self._read(answer)
            except (OSError, HTTPException, Unavailable) as error:
                connection.close()
                if kept and not isinstance(error, TimeoutError | Unavailable):
                    continue
                raise
            self._idle.put(connection)
            return found

    def _read(self, answer: HTTPResponse) -> bytes:
        body = answer.read(_LARGEST_ANSWER_BYTES + 1)
        if len(body) > _LARGEST_ANSWER_BYTES:
            raise Unavailable(
                f"{self._url} answers more than {_LARGEST_ANSWER_BYTES >> 20} MiB",
                remedy="Ask for less at a time, or have that server answer less.",
            )
        return body

    def _send(self, connection: HTTPConnection, path: str, body: bytes | None, end: float) -> HTTPResponse:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key_variable:
            headers["Authorization"] = f"Bearer {self._key()}"
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(_left(end))
        connection.response_class = partial(_Timed, end=end)  # type: ignore[assignment]  # it is only called
        connection.request("GET" if body is None else "POST", f"{self._base}{path}", body, headers)
        return connection.getresponse()

    def _key(self) -> str:
        key = os.environ.get(self._key_variable)
        if not key:
            raise Unavailable(
                f"the key of {self._url} is not set", remedy=f"Start the gateway with {self._key_variable} set."
            )
        return key

    def _refused(self, status: int, body: bytes) -> None:
        said = f"{self._url} answered {status}: {body.decode(errors='replace').strip()[:_LONGEST_TEXT]}"
        if status in (400, 413, 422):
            raise InvalidInput(said, remedy="Send what that server takes.")
        raise Unavailable(said, remedy="See that server's log.")


class _Timed(HTTPResponse):
    """An answer that must be read by ``end`` (monotonic): a socket's own timeout begins anew with every piece."""

    def __init__(self, sock: socket.socket, *given: Any, end: float, **more: Any) -> None:
        super().__init__(sock, *given, **more)
        self.fp = io.BufferedReader(_Pieces(self.fp.detach(), sock, end))


class _Pieces(io.RawIOBase):
    """What a socket's file reads until a moment."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, end: float) -> None:
        self._raw, self._socket, self._end = raw, sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._end))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(end: float) -> float:
    """Seconds until then. Raises TimeoutError."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


class RemoteRuntime:
    """A model on another server: tensors by v2, a column of prompts by OpenAI's protocol."""

    inline = False
    concurrency = _CALLS_AT_ONCE

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        del folder  # everything is in the bundle
        options = bundle.options
        self._bundle, self._model = bundle, options["model"]
        self._upstream = Upstream(options["url"], options["seconds"], options["key_variable"])

    def score(self, rows: Rows) -> Floats | Sequence[Any]:
        """See Runtime: one chat completion a row; params such as temperature and max_tokens go along."""
        assert rows.strings is not None
        return [self._complete(str(prompt), rows.params or {}) for prompt in rows.strings[:, 0]]

    def infer(self, tensors: Tensors) -> Tensors:
        """See Runtime."""
        datatypes = {spec.name: spec.datatype for spec in self._bundle.tensors}
        inputs = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatypes[name],
                "data": array.reshape(-1).tolist(),
            }
            for name, array in tensors.items()
        ]
        answer = self._upstream.ask(f"/v2/models/{self._model}/infer", {"inputs": inputs})
        try:
            outputs = {
                one["name"]: np.array(one["data"], dtype=DTYPES[one["datatype"]]).reshape(one["shape"])
                for one in answer["outputs"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise _unexpected(error) from None
        self._check_rows(outputs, len(next(iter(tensors.values()))))
        return outputs

    def unload(self) -> None:
        """See Runtime."""
        self._upstream.close()

    def _check_rows(self, outputs: Tensors, rows: int) -> None:
        wrong = next((name for name, one in outputs.items() if one.shape[:1] != (rows,)), None)
        if wrong is not None or not outputs:
            given = f"{wrong!r} of shape {list(outputs[wrong].shape)}" if wrong is not None else "no outputs"
            raise Unavailable(
                f"the other server answered {rows} rows with {given}", remedy="It must answer one entry a row."
            )

    def _complete(self, prompt: str, params: Mapping[str, Any]) -> str:
        document = {**params, "model": self._model, "messages": [{"role": "user", "content": prompt}]}
        answer = self._upstream.ask("/v1/chat/completions", document)
        try:
            return str(answer["choices"][0]["message"]["content"])
        except (KeyError, TypeError, IndexError) as error:
            raise _unexpected(error) from None


def _unexpected(error: Exception) -> NoriaError:
    return Unavailable(
        f"the other server's answer is not as its protocol has it: {type(error).__name__}: {error}",
        remedy="Check that it speaks the protocol that the model was registered with.",
    )
