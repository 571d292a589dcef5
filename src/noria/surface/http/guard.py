"""The door of the server: who asks, under which request id; whoever is nobody gets no further."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from noria import audit
from noria.access import Authenticator, Grant, Identity, Role
from noria.errors import Forbidden, NoriaError, Unauthenticated
from noria.ids import new_id
from noria.surface.errors import outside, problem

COOKIE = "noria_session"
PAGES = "/rollouts/"
"""Below it are the console's pages besides the overview: who has to sign in first is led back to them."""
SERVER_INFO = ("/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info")
_OPEN = ("/health", "/version", "/login", "/static/", *SERVER_INFO)
_PART_UPLOAD = re.compile(r"/(ajax-)?api/2\.0/mlflow-artifacts/mpu/parts/[0-9a-f]{48}/\d+")
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_HEALTH = ("/health", "/version")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?")
_DOORS = {"/api/noria/": "api", "/deployments/": "console", "/rollouts/": "console"}
_EVERYTHING = (Grant(Role.ADMIN),)

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


class Guard:
    """ASGI middleware. Without an authenticator everybody is let in, under the name that the client claims.

    ``allowed_hosts`` are shell patterns of names, with or without a port, that requests may be sent to.
    """

    def __init__(
        self, application: Application, authenticator: Authenticator | None, allowed_hosts: Sequence[str] = ()
    ) -> None:
        self._application = application
        self._authenticator = authenticator
        self._allowed_hosts = [pattern.lower() for pattern in allowed_hosts]

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Let a request in with its identity in ``state``, or answer 401 or 403."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        try:
            self._check_address(scope, headers)
            identity = await self._identify(scope, headers)
        except NoriaError as error:
            await _refusal(scope, headers, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        with audit.request(request_id, identity.name):
            await self._application(scope, receive, _with_request_id(send, request_id))

    def _check_address(self, scope: Scope, headers: Headers) -> None:
        """Raises Forbidden for what a browser sends for a page that is not this server's.

        Its address leads here (DNS rebinding), or it sends a request across (CSRF). Who has accounts and names no hosts
        is asked under any: nobody gets in without a credential of the page's own.
        """
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        known = self._authenticator is not None and not self._allowed_hosts
        if not known and str(scope["path"]) not in _HEALTH and not self._is_ours(host):
            raise Forbidden(
                f"Invalid Host header - possible DNS rebinding attack detected: {host[:100]!r}",
                remedy="Ask for localhost or 127.0.0.1, or add the name to server.allowed_hosts.",
            )
        if origin is not None:
            _check_own_page(headers)

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or "" if _HOST.fullmatch(host) else ""
        if name == "localhost" or any(fnmatchcase(name, one) or fnmatchcase(host, one) for one in self._allowed_hosts):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    async def _identify(self, scope: Scope, headers: Headers) -> Identity:
        name, secret = _credential(headers.get("authorization", ""))
        if self._authenticator is None:
            return Identity(f"{_door(str(scope['path']))}:{name or 'anonymous'}", _EVERYTHING, proven=False)
        path = str(scope["path"])
        if path.startswith(_OPEN) or _PART_UPLOAD.fullmatch(path):
            return Identity("anonymous")
        if not secret and (cookie := HTTPConnection(scope).cookies.get(COOKIE)):
            _check_origin(scope, headers)
            name, secret = "", cookie
        if not secret:
            raise Unauthenticated("this server wants to know who asks", remedy="Send Basic or Bearer credentials.")
        if (remembered := self._authenticator.remembered(name, secret)) is not None:
            return remembered
        return await run_in_threadpool(self._authenticator.authenticate, name, secret)


def _door(path: str) -> str:
    """By which way somebody came who has only a claimed name: part of that name, as in ``mlflow:ada``."""
    return next((door for beginning, door in _DOORS.items() if path.startswith(beginning)), "mlflow")


def identity_of(request: HTTPConnection) -> Identity:
    """Who sent the request."""
    identity: Identity = request.scope["state"]["identity"]
    return identity


def _credential(header: str) -> tuple[str, str]:
    """(user, password) of Basic, ("", token) of Bearer; nothing of anything else. Raises Unauthenticated."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return "", value.strip()
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise Unauthenticated("the Authorization header is not base64", remedy="Send user:password so.") from None
    return name[:200], secret


def _check_origin(scope: Scope, headers: Headers) -> None:
    """A cookie goes along with whatever page sends the request, so a change must come from our own pages."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return
    _check_own_page(headers)


def _check_own_page(headers: Headers) -> None:
    """Raises Forbidden unless a page of this server sends the request."""
    origin = headers.get("origin", "")
    if origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise Forbidden(
            f"Cross-origin request blocked: a page of {origin[:200] or 'nowhere'} asks",
            remedy="Use the console's own pages, or a client that is no browser.",
        )


def _refusal(scope: Scope, headers: Headers, error: NoriaError) -> Response:
    seen, path = outside(error), str(scope["path"])
    challenge = {"www-authenticate": 'Basic realm="Noria"'} if seen.status == 401 else {}
    is_read = scope["method"] == "GET"
    if "text/html" in headers.get("accept", "") and seen.status == 401 and (is_read or _door(path) == "console"):
        wanted = f"?next={quote(path)}" if is_read and path.startswith(PAGES) else ""
        return RedirectResponse(f"/login{wanted}", 303)
    if path.startswith("/api/noria"):
        return JSONResponse(problem(error), seen.status, challenge, media_type="application/problem+json")
    return JSONResponse({"error_code": seen.mlflow, "message": str(error)}, seen.status, challenge)


def _with_request_id(send: Any, request_id: str) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    name = (b"x-request-id", request_id.encode())

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), name]
        await send(message)

    return sending
