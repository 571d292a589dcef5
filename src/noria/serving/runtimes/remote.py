"""Models that other servers run: asked by the Open Inference Protocol, or as OpenAI's chat completions."""

from __future__ import annotations

import io
import json
import os
import queue
import re
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noria.errors import InvalidConfig, InvalidInput, NoriaError, Overloaded, Unavailable
from noria.optimize.bundle import Bundle
from noria.serving.runtimes.base import Floats, Rows, Tensors, decoded
from noria.serving.runtimes.remote_tensors import read_tensor, written

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

        Raises InvalidInput for what it refuses (4xx), Overloaded when it has too much to do (429), Unavailable when it
        cannot be reached or fails.
        """
        try:
            answer, body = self._exchange(path, None if document is None else json.dumps(document).encode())
        except TimeoutError:
            raise Unavailable(
                f"{self._url} did not answer in {self._seconds:g} seconds",
                remedy="See how busy it is; `noria compose remote --seconds` allows more.",
            ) from None
        except IncompleteRead:
            raise Unavailable(f"{self._url} broke off its answer", remedy="See that server's log.") from None
        except (OSError, HTTPException) as error:
            raise Unavailable(
                f"{self._url} cannot be reached: {self._without_key(str(error)) or type(error).__name__}",
                remedy="Check that it runs and that this machine may reach it.",
            ) from None
        if answer.status >= 300:
            self._refused(answer, body)
        try:
            return decoded(body)
        except (ValueError, RecursionError):
            raise Unavailable(f"{self._url} answered no JSON", remedy="Check the address and the protocol.") from None

    def close(self) -> None:
        """Close what is open."""
        while not self._idle.empty():
            self._idle.get().close()

    def _exchange(self, path: str, body: bytes | None) -> tuple[HTTPResponse, bytes]:
        """One request, again on another connection when a kept one turns out to be closed.

        A POST that was sent whole is never sent again: that server may have worked on it, and want its price for it.
        """
        end = time.monotonic() + self._seconds
        while True:
            connection = self._connection()
            kept, is_sent = connection.sock is not None, False
            try:
                self._send(connection, path, body, end)
                is_sent = True
                answer = connection.getresponse()
                found = answer, self._read(answer)
            except (OSError, HTTPException, Unavailable) as error:
                connection.close()
                is_harmless = body is None or not is_sent
                if kept and is_harmless and not isinstance(error, TimeoutError | Unavailable):
                    continue
                raise
            self._idle.put(connection)
            return found

    def _connection(self) -> HTTPConnection:
        """A kept connection that the other side has not ended, or a new one, not connected yet."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return self._make()
            if connection.sock is None or not _has_news(connection.sock):
                return connection
            connection.close()

    def _read(self, answer: HTTPResponse) -> bytes:
        body = answer.read(_LARGEST_ANSWER_BYTES + 1)
        if len(body) > _LARGEST_ANSWER_BYTES:
            raise Unavailable(
                f"{self._url} answers more than {_LARGEST_ANSWER_BYTES >> 20} MiB",
                remedy="Ask for less at a time, or have that server answer less.",
            )
        if answer.length:
            raise IncompleteRead(body, answer.length)
        return body

    def _send(self, connection: HTTPConnection, path: str, body: bytes | None, end: float) -> None:
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

    def _key(self) -> str:
        """The key, without the end of line of the file that it may come of. Raises Unavailable."""
        key = os.environ.get(self._key_variable, "").strip()
        if not key:
            raise Unavailable(
                f"the key of {self._url} is not set", remedy=f"Start the gateway with {self._key_variable} set."
            )
        if not (key.isascii() and key.isprintable()):
            raise Unavailable(
                f"the key of {self._url} has characters that no header holds",
                remedy=f"Start the gateway with {self._key_variable} as that server gave it out.",
            )
        return key

    def _without_key(self, said: str) -> str:
        """What the other server said; some repeat the key that they refuse."""
        key = os.environ.get(self._key_variable, "").strip() if self._key_variable else ""
        return said.replace(key, "(the key)") if key else said

    def _refused(self, answer: HTTPResponse, body: bytes) -> None:
        text = self._without_key(body.decode(errors="replace")).strip()[:_LONGEST_TEXT]
        if answer.status < 400:
            raise Unavailable(
                f"{self._url} answered {answer.status}, and refers to {answer.headers.get('Location') or 'nothing'}",
                remedy="Register the model again with the address that answers itself: none is followed.",
            )
        said = f"{self._url} answered {answer.status}: {text}"
        if answer.status in (400, 413, 422):
            raise InvalidInput(said, remedy="Send what that server takes.")
        if answer.status == 429:
            seconds = _seconds_to_wait(answer.headers.get("Retry-After", ""))
            raise Overloaded(said, remedy="Ask again later, or for less.", retry_after=seconds)
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


def _has_news(sock: socket.socket) -> bool:
    """Whether something can be read of a connection on which nothing was asked: its end, or what belongs nowhere."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _seconds_to_wait(retry_after: str) -> int:
    """What a Retry-After header says, a second where that is a date, or nothing."""
    text = retry_after.strip()
    return max(int(text), 1) if re.fullmatch("[0-9]{1,6}", text) else 1


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

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """See Runtime: params go along as parameters."""
        datatypes = {spec.name: spec.datatype for spec in self._bundle.tensors}
        inputs = [written(name, datatypes[name], array) for name, array in tensors.items()]
        document = {"inputs": inputs, **({"parameters": params} if params else {})}
        answer = self._upstream.ask(f"/v2/models/{self._model}/infer", document)
        try:
            outputs = dict(map(read_tensor, answer["outputs"]))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
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
            choice = answer["choices"][0]
            text = _text(choice["message"].get("content"))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise _unexpected(error) from None
        if text is None:
            raise _no_text(choice)
        return text


def _text(content: Any) -> str | None:
    """A message's content, of which parts are joined; None where it is no text, or not only that."""
    if isinstance(content, list):
        texts = [part["text"] for part in content if part.get("type") == "text"]
        return "".join(texts) if texts and len(texts) == len(content) else None
    return content if isinstance(content, str) else None


def _no_text(choice: Mapping[str, Any]) -> NoriaError:
    """Why there is no text: what the prompt or its params led to is told as the client's fault."""
    reason, message = choice.get("finish_reason"), choice["message"]
    said = f"the other server answered no text (finish_reason {reason!r})"
    if refusal := message.get("refusal"):
        said += f": {str(refusal)[:_LONGEST_TEXT]}"
    if refusal or reason == "content_filter":
        return InvalidInput(said, remedy="It refuses this prompt: send another.")
    if message.get("tool_calls") or message.get("function_call"):
        return InvalidInput(said, remedy="It wants tools called, which a prediction cannot: send params without tools.")
    return Unavailable(said, remedy="See that server's log; where its length ended, raise max_tokens in params.")


def _unexpected(error: Exception) -> NoriaError:
    return Unavailable(
        f"the other server's answer is not as its protocol has it: {type(error).__name__}: {error}",
        remedy="Check that it speaks the protocol that the model was registered with.",
    )
