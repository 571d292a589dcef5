"""Predictions over HTTP: a small client for a gateway, with kept-alive connections and errors in Noria's words."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from noria.client.address import Address, reach_remedy
from noria.client.rows import encoded, features_of, listed
from noria.client.tensors import infer_answer, infer_request
from noria.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NoriaError,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from noria.ids import new_id
from noria.structs import read_by_threads

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from noria.client.rows import Rows

T = TypeVar("T")

_ERRORS: Mapping[int, type[NoriaError]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    413: InvalidInput,
    422: InvalidInput,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}
_BUSY = (429, 503)
"""Nothing was done: the same may be asked again."""
_NO_GATEWAY = "Check the address: a gateway is asked, http://HOST:8000 by default; the server's port predicts nothing."
_WAIT_SECONDS = 0.1
_IDLE_KEPT = 8
_PIECE_BYTES = 2**18
_LONGEST_SECONDS = 86_400


@read_by_threads
class Answer(msgspec.Struct, frozen=True):
    """The prediction for one row. ``probability`` is that of the prediction, ``score`` that of the last of two classes.

    ``confidence`` is that probability in a word, such as very_high. They are None where the model gives none.
    """

    prediction_id: str
    prediction: Any
    model: str
    model_version: str
    variant: str
    route_revision: int
    probability: float | None = None
    confidence: str | None = None
    score: float | None = None


@read_by_threads
class _Answers(msgspec.Struct, frozen=True):
    predictions: list[Answer]


class PredictionClient:
    """Asks a gateway. Safe to share between threads, and with processes forked later: each request has a connection to
    itself.

    ``url`` is http:// or https://, with the path that a proxy has it under, if any, or unix:///PATH of a socket.
    ``deployment`` is needed where several are served, ``key`` where they want one. ``timeout_seconds`` bounds each
    call, retries included; the gateway is told what is left, and gives up by then, too. A busy one is asked up to
    ``retries`` times again. White space around a key, such as the end of the line it was read from, is left out.

    Values may be numpy's or pandas': NaN, NaT and NA are sent as None; an infinite number is refused.

    Errors: InvalidInput for what the model does not take, NotFound, Unauthenticated, Forbidden, Overloaded, Unavailable
    when nothing answers or something else than a gateway, DeadlineExceeded, and Conflict once the client is closed.
    """

    def __init__(
        self, url: str, *, deployment: str = "", key: str = "", timeout_seconds: float = 10.0, retries: int = 2
    ) -> None:
        if not 0 < timeout_seconds <= _LONGEST_SECONDS:
            raise InvalidInput(
                f"timeout_seconds={timeout_seconds} is no time to wait",
                remedy=f"Give seconds above 0, and at most {_LONGEST_SECONDS:,}.",
            )
        if retries < 0:
            raise InvalidInput(f"retries={retries} is less than none", remedy="Give 0 or more.")
        self._address = Address.of(url)
        self._deployment = deployment
        self._prefix = f"/models/{quote(deployment, safe='')}" if deployment else ""
        self._headers = {"user-agent": "noria", **key_header(key)}
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False
        self._process = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Used with ``with``, its connections are closed behind it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def predict(
        self,
        features: Mapping[str, Any] | Sequence[Any] = (),
        *,
        entities: Mapping[str, str | int] | None = None,
        prediction_id: str = "",
        unit_id: str = "",
        event_time: datetime | None = None,
    ) -> Answer:
        """The prediction for one row.

        ``features`` are by name, or in the model's order; what is looked up is named by ``entities``. The same
        ``unit_id`` is answered by the same variant of an experiment. ``event_time``, now by default, has a time zone.
        """
        row = {
            "features": features_of(features),
            "entities": entities or {},
            "prediction_id": prediction_id,
            "unit_id": unit_id,
            "event_time": "" if event_time is None else event_time,
        }
        return self._post(f"{self._prefix}/predict", row, Answer)

    def predict_many(self, rows: Rows) -> list[Answer]:
        """The predictions for several rows, in their order, in one request; each is routed by itself.

        A row has the keys that ``predict`` has as arguments: ``{"features": {...}, "entities": {...}}``. Of a pandas or
        polars DataFrame the columns are the features. One bad row refuses them all: the error's ``details`` name each.
        """
        return self._post(f"{self._prefix}/predict/batch", {"instances": listed(rows)}, _Answers).predictions

    def infer(self, inputs: Mapping[str, ArrayLike], *, deployment: str = "") -> dict[str, NDArray[Any]]:
        """The model's output tensors for input tensors, by the Open Inference Protocol, as raw bytes.

        Shapes are (rows, ...); numbers keep their type, those of lists are int64 or float64; texts are arrays of str.
        The deployment may be the client's.
        """
        if not (name := deployment or self._deployment):
            raise InvalidInput("infer wants a deployment", remedy="Name one here, or when you make the client.")
        header, raw = infer_request(inputs)
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(header))}
        path = f"/v2/models/{quote(name, safe='')}/infer"
        answer, length = self._ask("POST", path, header + raw, headers)
        try:
            return infer_answer(answer, int(length or len(answer)))
        except (ValueError, KeyError, TypeError):
            raise self._no_gateway(path, answer) from None

    def label(self, prediction_id: str, label: float, *, event_time: datetime) -> None:
        """Tell what turned out to be true. ``event_time`` is that of the prediction, with a time zone."""
        label_of = {"prediction_id": prediction_id, "event_time": event_time, "label": label}
        self._post(f"{self._prefix}/labels", {"labels": [label_of]}, dict)

    def reward(self, value: float, *, prediction_id: str = "", unit_id: str = "", metric: str = "reward") -> None:
        """Tell what a prediction, or a unit, was worth."""
        reward_of = {"value": value, "prediction_id": prediction_id, "unit_id": unit_id, "metric": metric}
        headers = {"content-type": "application/json", "idempotency-key": new_id()}  # it may be asked again
        path = f"{self._prefix}/rewards"
        self._read(path, self._ask("POST", path, encoded({"rewards": [reward_of]}), headers)[0], dict)

    def info(self) -> dict[str, Any]:
        """What is served: the model's version, its features and their kinds, and the shares of the traffic."""
        path = f"{self._prefix}/model/info"
        return self._read(path, self._ask("GET", path)[0], dict[str, Any])

    def close(self) -> None:
        """Close the connections; nothing can be asked from then on."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _post(self, path: str, document: object, kind: type[T]) -> T:
        answer = self._ask("POST", path, encoded(document), {"content-type": "application/json"})[0]
        return self._read(path, answer, kind)

    def _read(self, path: str, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._no_gateway(path, answer) from None

    def _no_gateway(self, path: str, answer: bytes) -> Unavailable:
        shown = answer[:200].decode(errors="replace")
        return Unavailable(
            f"{self._address}{path} gave an answer that is none of a gateway's: {shown!r}",
            remedy="Check the address: a proxy's page, or another server, may answer there.",
        )

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, str]:
        """A good answer's body, and how much of it is JSON where tensors follow."""
        ends = time.monotonic() + self._timeout_seconds
        for attempt in range(self._retries + 1):
            left = ends - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"no answer in {self._timeout_seconds:g} seconds", remedy="Allow more time.")
            sent = {**self._headers, **(headers or {}), "timeout": f"{left * 1000:.0f}ms"}
            try:
                status, found, answer = self._exchange(method, path, body, sent, left)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"{self._address} gave no answer in {self._timeout_seconds:g} seconds", remedy="Allow more time."
                ) from None
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
                    raise self._no_gateway(path, str(error).encode()) from None
                raise Unavailable(
                    f"{self._address} does not answer: {error or type(error).__name__}", remedy=reach_remedy(error)
                ) from error
            if status < 300:
                return answer, found.get("inference-header-content-length", "")
            if status not in _BUSY or attempt == self._retries:
                raise refusal(status, answer, found)
            time.sleep(min(_WAIT_SECONDS * 2**attempt, max(0.0, ends - time.monotonic())))
        raise AssertionError("the last attempt answers or raises")

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request and its answer; on a connection that the gateway has closed meanwhile, once more on a new one."""
        connection, ends = self._kept(), time.monotonic() + timeout
        for known in (connection, None):
            current = known or self._address.connection(timeout)
            if current.sock is not None:
                current.sock.settimeout(timeout)
            try:
                current.request(method, self._address.prefix + path, body or None, dict(headers))
                connected = current.sock
                with current.getresponse() as response:
                    answer = _body(response, connected, ends)
                found = {name.lower(): value for name, value in response.getheaders()}
                self._keep(current)  # now that its answer is closed: another thread may ask over it at once
                return response.status, found, answer
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                current.close()
                if known is None:
                    raise
            except BaseException:
                current.close()
                raise
        raise AssertionError("the second connection answers or raises")

    def _kept(self) -> http.client.HTTPConnection | None:
        """An idle connection of this process: one that came by a fork is its parent's, too, who gets its answers."""
        with self._lock:
            if self._closed:
                raise Conflict("the client is closed", remedy="Make a new one, or ask before it is closed.")
            if self._process != os.getpid():
                self._process, inherited, self._idle = os.getpid(), self._idle, []
                for connection in inherited:
                    connection.close()
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < _IDLE_KEPT and not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def key_header(key: str) -> dict[str, str]:
    """The header with an API key, without the white space around it; none for an empty one.

    Raises InvalidInput for a key that no header can carry; the message does not have it.
    """
    plain = key.strip()
    if not (plain.isascii() and plain.isprintable()):
        raise InvalidInput(
            "the API key holds a line end, or another character that no header carries",
            remedy="Give it as it was issued: printable ASCII, on one line.",
        )
    return {"x-api-key": plain} if plain else {}


def _body(response: http.client.HTTPResponse, connected: socket.socket, ends: float) -> bytes:
    """The whole body, where it has come by ``ends`` on the monotonic clock: a socket's timeout is that of each piece.

    Raises TimeoutError, and IncompleteRead where the connection ends before it.
    """
    parts = []
    while part := response.read1(_PIECE_BYTES):
        parts.append(part)
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connected.fileno() >= 0:  # it may be closed behind the last piece
            connected.settimeout(left)
    if response.length:
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return b"".join(parts)


def refusal(status: int, answer: bytes, headers: Mapping[str, str]) -> NoriaError:
    """What a gateway's refusal says, in whichever of its shapes."""
    document: Any = {}
    with suppress(ValueError):
        document = json.loads(answer)
    document = document if isinstance(document, dict) else {}
    text = document.get("detail") or document.get("error") or document.get("message")
    message = str(text or f"the gateway answered {status}: {answer[:200].decode(errors='replace')}")
    is_none = status == 404 and text in (None, "Not Found")
    remedy = str(document.get("remedy", _NO_GATEWAY if is_none else ""))
    details = [str(one) for one in document.get("errors", [])]
    if status == 429:
        after = headers.get("retry-after", "1")
        return Overloaded(message, remedy=remedy, retry_after=int(after) if after.isdigit() else 1)
    return _ERRORS.get(status, NoriaError)(message, remedy=remedy, details=details)
