"""A small client of MLflow's REST protocol: pages, time limits, retries, and errors that say what to do."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, cast

from noria.errors import InvalidInput, NotFound, Unavailable

_TIMEOUT_SECONDS = 60
_ATTEMPTS = 5
_PASSING_STATUSES = (429, 502, 503, 504)
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

Json = Mapping[str, Any]


class RestClient:
    """Talks to one server. Credentials are those that MLflow's own client takes from the environment."""

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        parts = urllib.parse.urlsplit(url.rstrip("/"))
        if not parts.hostname:
            raise InvalidInput(f"{url!r} names no server", remedy="Write it like http://127.0.0.1:5000.")
        host = parts.netloc.rpartition("@")[2]
        self.url = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
        self._headers = {"User-Agent": "noria", **_authorization(parts, environment)}

    def get(self, path: str, **arguments: object) -> Json:
        """The answer to a GET below the API's root."""
        query = urllib.parse.urlencode({key: value for key, value in arguments.items() if value not in (None, "")})
        return self._json("GET", f"{_API}{path}?{query}", None)

    def pages(self, method: str, path: str, field: str, **arguments: object) -> Iterator[Json]:
        """Every entry of ``field`` over all pages."""
        token = ""
        while True:
            some = arguments | ({"page_token": token} if token else {})
            page = self.get(path, **some) if method == "GET" else self.send("POST", path, some)
            yield from page.get(field, ())
            token = page.get("next_page_token", "")
            if not token:
                return

    def send(self, method: str, path: str, body: Mapping[str, object], *, again: bool = True) -> Json:
        """The answer to a call with a body. ``again``: whether repeating it after a broken connection does no harm."""
        return self._json(method, _API + path, json.dumps(body).encode(), again=again)

    def listing(self, folder: str) -> list[Json]:
        """The entries of a folder of the artifact proxy."""
        answer = self._json("GET", f"{_ARTIFACTS}?{urllib.parse.urlencode({'path': folder})}", None)
        return list(answer.get("files", ()))

    def download(self, path: str) -> bytes:
        """One file of the artifact proxy."""
        return self._call("GET", f"{_ARTIFACTS}/{urllib.parse.quote(path)}", None)

    def upload(self, path: str, content: bytes) -> None:
        """Write one file through the artifact proxy."""
        self._call("PUT", f"{_ARTIFACTS}/{urllib.parse.quote(path)}", content, kind="application/octet-stream")

    def _json(self, method: str, path: str, body: bytes | None, *, again: bool = True) -> Json:
        content = self._call(method, path, body, again=again)
        try:
            return cast(Json, json.loads(content or b"{}"))
        except ValueError:
            raise Unavailable(
                f"{self.url}{path} did not answer in JSON: {content[:80]!r}",
                remedy="Check that the address is that of an MLflow server, with its path prefix if it has one.",
            ) from None

    def _call(
        self, method: str, path: str, body: bytes | None, *, again: bool = True, kind: str = "application/json"
    ) -> bytes:
        """The body of the answer. Raises NotFound, InvalidInput or Unavailable in the server's words."""
        attempts = _ATTEMPTS if again else 1
        for attempt in range(attempts):
            request = urllib.request.Request(self.url + path, data=body, method=method)
            for name, value in {**self._headers, "Content-Type": kind}.items():
                request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                    return cast(bytes, answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _PASSING_STATUSES or attempt + 1 == attempts:
                        raise self._refused(error, path) from None
            except (OSError, http.client.HTTPException) as error:
                if attempt + 1 == attempts:
                    raise Unavailable(
                        f"{self.url} does not answer {method} {path.partition('?')[0]}: {error}",
                        remedy="Check that the server runs and the address is right, then run the same command again.",
                    ) from None
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _refused(self, error: urllib.error.HTTPError, path: str) -> NotFound | InvalidInput | Unavailable:
        said = error.read().decode(errors="replace")
        try:
            said = json.loads(said)["message"]
        except (ValueError, KeyError, TypeError):
            said = said[:200]
        text = f"{self.url}{path.partition('?')[0]} answered {error.code}: {said}"
        if error.code in (401, 403):
            return Unavailable(text, remedy="Set MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN.")
        if error.code == 404:
            return NotFound(text, remedy="Check the address, and that the server is MLflow 1.20 or newer.")
        if error.code < 500:
            return InvalidInput(text, remedy="The server does not take this; its message says why.")
        return Unavailable(text, remedy="Look into the server's log, then run the same command again.")


def _authorization(parts: urllib.parse.SplitResult, environment: Mapping[str, str]) -> dict[str, str]:
    """The header for the address's own credentials, else MLFLOW_TRACKING_USERNAME and _PASSWORD, else _TOKEN."""
    user = urllib.parse.unquote(parts.username or "") or environment.get("MLFLOW_TRACKING_USERNAME", "")
    password = urllib.parse.unquote(parts.password or "") or environment.get("MLFLOW_TRACKING_PASSWORD", "")
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    if token := environment.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}
