"""HTTP to a tracking server: kept-alive connections, retries with back-off, and errors in our words."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import os
import random
import select
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from noria.errors import (
    AlreadyExists,
    Conflict,
    CorruptArtifact,
    InvalidConfig,
    InvalidInput,
    NoriaError,
    NotFound,
    PolicyRefused,
    Unavailable,
)

T = TypeVar("T")
Environment = Mapping[str, str]
_BUSY = (429, 503)
"""The server has not done what was asked: anything may be asked again."""
_LOST = (500, 502, 504)
"""It may have: only what can be repeated is asked again."""
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0
_IDLE_KEPT = 8

_ERRORS: Mapping[str, type[NoriaError]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFound,
    "ENDPOINT_NOT_FOUND": NotFound,
    "NOT_FOUND": NotFound,
    "RESOURCE_ALREADY_EXISTS": AlreadyExists,
    "INVALID_PARAMETER_VALUE": InvalidInput,
    "BAD_REQUEST": InvalidInput,
    "INVALID_STATE": Conflict,
    "RESOURCE_CONFLICT": Conflict,
    "PERMISSION_DENIED": PolicyRefused,
    "DATA_LOSS": CorruptArtifact,
    "TEMPORARILY_UNAVAILABLE": Unavailable,
    "UNAUTHENTICATED": InvalidConfig,
}
_STATUSES: Mapping[int, type[NoriaError]] = {400: InvalidInput, 401: InvalidConfig, 403: PolicyRefused, 404: NotFound}
_WHO = "Set NORIA_TOKEN, MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."


class Transport:
    """Requests to one server. Safe to share between threads: each request has a connection to itself.

    ``MLFLOW_HTTP_REQUEST_TIMEOUT`` (seconds, 120) bounds each wait for the server, ``MLFLOW_HTTP_REQUEST_MAX_RETRIES``
    (5) how often a request is repeated after a lost connection or a busy server.
    """

    def __init__(self, url: str, environment: Environment = os.environ) -> None:
        self._address = urlsplit(url)
        if not self._address.hostname:
            raise InvalidInput(f"{url!r} names no server", remedy="Write http://host:port.")
        self._headers = {
            "User-Agent": "noria",
            "Accept": "application/json",
            **_credentials(self._address, environment),
        }
        self._timeout_seconds = _number(environment, "MLFLOW_HTTP_REQUEST_TIMEOUT", 120.0)
        self._retries = int(_number(environment, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", 5))
        self._trusted = environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self.name = f"{self._address.scheme}://{self._address.hostname}:{self._address.port or self._default_port()}"

    def call(self, method: str, path: str, arguments: Mapping[str, Any], *, repeatable: bool = True) -> dict[str, Any]:
        """The JSON object answered. ``repeatable``: asking twice does the same as asking once."""
        body, headers = b"", {}
        if method == "GET":
            path = f"{path}?{urlencode(arguments, doseq=True)}"
        else:
            body, headers = json.dumps(_finite(arguments)).encode(), {"Content-Type": "application/json"}
        answer = self._ask(method, path, body, headers, lambda response: response.read(), repeatable=repeatable)
        return self._object(answer)

    def upload(self, path: str, content: bytes | Path) -> None:
        """PUT bytes or a file; a file is sent as it is read."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._ask("PUT", quote(path), content, headers, lambda response: response.read())

    def download(self, path: str, target: Path) -> None:
        """GET into a file, as it arrives; a broken transfer is begun anew."""

        def keep(response: http.client.HTTPResponse) -> None:
            with target.open("wb") as file:
                shutil.copyfileobj(response, file, 1 << 20)
            if response.length:  # the connection ended before what was announced had come
                raise http.client.IncompleteRead(b"", response.length)

        self._ask("GET", quote(path), b"", {}, keep)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | Path,
        headers: Mapping[str, str],
        receive: Callable[[http.client.HTTPResponse], T],
        *,
        repeatable: bool = True,
    ) -> T:
        """What ``receive`` makes of a good answer; failures that may pass are asked again, ever later."""
        for attempt in range(self._retries + 1):
            with self._connection(fresh=attempt > 0 or not repeatable) as connection:
                try:
                    connection.connect() if connection.sock is None else None
                except ssl.SSLCertVerificationError as error:
                    raise self._unreachable(error) from error
                except OSError as error:
                    fault: Exception = self._unreachable(error)
                else:
                    try:
                        return self._exchange(connection, method, path, body, headers, receive)
                    except _Refused as refusal:
                        fault = refusal.error
                        if refusal.status not in _BUSY and not (repeatable and refusal.status in _LOST):
                            raise fault from None
                    except (OSError, http.client.HTTPException) as error:
                        connection.close()
                        fault = self._unreachable(error)
                        if not repeatable:
                            raise fault from error
            if attempt < self._retries:
                time.sleep(_wait_seconds(attempt))
        raise fault

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Path,
        headers: Mapping[str, str],
        receive: Callable[[http.client.HTTPResponse], T],
    ) -> T:
        target = self._address.path.rstrip("/") + path
        with body.open("rb") if isinstance(body, Path) else contextlib.nullcontext(body or None) as content:
            connection.request(method, target, content, {**self._headers, **headers})
        with connection.getresponse() as response:
            if response.status == 200:
                return receive(response)
            raise _Refused(response.status, _error(response.status, response.read(), self.name))

    @contextlib.contextmanager
    def _connection(self, *, fresh: bool) -> Iterator[http.client.HTTPConnection]:
        """An idle connection or a new one; it is kept afterwards if it still stands."""
        with self._lock:
            known = self._idle.pop() if self._idle and not fresh else None
        if known is not None and _has_ended(known):
            known.close()
            known = None
        connection = known or self._open()
        try:
            yield connection
        except NoriaError:  # the exchange was complete, only its answer is a refusal
            self._keep(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._keep(connection)

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < _IDLE_KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port or self._default_port()
        if self._address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        context = ssl.create_default_context(cafile=self._trusted)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=context)

    def _default_port(self) -> int:
        return 443 if self._address.scheme == "https" else 80

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the tracking server {self.name} does not answer: {error or type(error).__name__}",
            remedy="Check that it runs, and the address: NORIA_TRACKING_URI or set_tracking_uri.",
        )

    def _object(self, answer: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            document = json.loads(answer or b"{}")
            if isinstance(document, dict):
                return document
        raise Unavailable(
            f"{self.name} is no tracking server: it answered {answer[:60]!r}",
            remedy="Check the address: NORIA_TRACKING_URI or set_tracking_uri.",
        )


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server closed an idle connection: nothing else can make it readable."""
    return bool(select.select([connection.sock], [], [], 0)[0])


class _Refused(Exception):
    def __init__(self, status: int, error: NoriaError) -> None:
        self.status, self.error = status, error


def _error(status: int, answer: bytes, server: str) -> NoriaError:
    """The error a server's answer means; Noria's lists of conditions become ``details`` again."""
    try:
        document = json.loads(answer)
        code, text = str(document.get("error_code", "")), str(document.get("message", ""))
    except (ValueError, AttributeError):
        code, text = "", ""
    kind = _ERRORS.get(code) or _STATUSES.get(status) or (Unavailable if status in (*_BUSY, *_LOST) else NoriaError)
    message, details, remedy = _parts(text or f"{server} answered {status}: {answer[:200].decode(errors='replace')}")
    return kind(message, details=details, remedy=remedy or (_WHO if status == 401 else ""))


def _parts(text: str) -> tuple[str, list[str], str]:
    """(message, details, remedy) of an error's text; a text without details stays as it is."""
    lines = text.split("\n")
    details = [line[4:] for line in lines if line.startswith("  - ")]
    if not details:
        return text, [], ""
    first = next(at for at, line in enumerate(lines) if line.startswith("  - "))
    rest = [line for line in lines[first:] if not line.startswith("  - ")]
    return "\n".join(lines[:first]), details, "\n".join(rest)


def _credentials(address: SplitResult, environment: Environment) -> dict[str, str]:
    """The Authorization header: Noria's token, then what MLflow clients send, then the user in the address."""
    if token := environment.get("NORIA_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = environment.get("MLFLOW_TRACKING_USERNAME") or unquote(address.username or "")
    password = environment.get("MLFLOW_TRACKING_PASSWORD") or unquote(address.password or "")
    if user:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _number(environment: Environment, name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise InvalidConfig(f"{name} is {text!r}, not a number", remedy="Mend or unset it.") from None


def _wait_seconds(attempt: int) -> float:
    """0.1, 0.2, 0.4, ... with up to as much again by chance, so that many clients do not come back at once."""
    wait = min(_FIRST_WAIT_SECONDS * float(2**attempt), _LONGEST_WAIT_SECONDS)
    return wait + random.uniform(0, wait)


def _finite(value: Any) -> Any:
    """``value`` with NaN and infinities as texts, the way MLflow's JSON has them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
