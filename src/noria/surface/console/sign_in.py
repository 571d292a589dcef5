"""Signing in to the console: by password, or through an OpenID Connect issuer. A session is a token that expires."""

from __future__ import annotations

import hmac
import secrets
from datetime import timedelta
from urllib.parse import parse_qs, quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from noria.access import Authenticator, Grant, Identity, Role, oidc, tokens, users
from noria.clock import Clock
from noria.config import AccessSettings, OidcSettings
from noria.errors import Forbidden, NoriaError, Unauthenticated
from noria.store.database import Database
from noria.surface.console.pages import HEADERS, template
from noria.surface.errors import outside
from noria.surface.http.bodies import read_body
from noria.surface.http.guard import COOKIE, PAGES

_FLOW_COOKIE = "noria_sign_in"
_FLOW_SECONDS = 600
_LARGEST_FORM_BYTES = 10_000
_LONGEST_PATH = 500
"""Of the page that was asked for: it waits in a cookie."""


def sign_in_routes(
    database: Database, settings: AccessSettings, authenticator: Authenticator, clock: Clock
) -> list[BaseRoute]:
    """``/login``, ``/logout`` and, with an issuer, ``/login/oidc`` and its callback."""
    desk = _Desk(database, settings, authenticator, clock)
    routes: list[BaseRoute] = [
        Route("/login", desk.form, methods=["GET"]),
        Route("/login", desk.by_password, methods=["POST"]),
        Route("/logout", desk.leave, methods=["POST"]),
    ]
    if settings.oidc is not None:
        flow = _OidcFlow(desk, settings.oidc)
        routes += [Route("/login/oidc", flow.begin), Route("/login/oidc/callback", flow.end)]
    return routes


class _Desk:
    """Gives out sessions and takes them back."""

    def __init__(
        self, database: Database, settings: AccessSettings, authenticator: Authenticator, clock: Clock
    ) -> None:
        self.database, self.clock = database, clock
        self._settings, self._authenticator = settings, authenticator

    async def form(self, request: Request) -> Response:
        return self.page(wanted=request.query_params.get("next", ""))

    def page(self, fault: NoriaError | None = None, *, name: str = "", wanted: str = "") -> Response:
        """The sign-in page, with what went wrong, who tried, and the page that was asked for."""
        content = template("sign_in.html").render(
            signed_in="", fault=fault, oidc=self._settings.oidc is not None, name=name, wanted=wanted
        )
        return HTMLResponse(content, 200 if fault is None else outside(fault).status, HEADERS)

    async def by_password(self, request: Request) -> Response:
        name = wanted = ""
        try:
            body = await read_body(request, largest=_LARGEST_FORM_BYTES)
            fields = parse_qs(body.decode(errors="replace"))
            name, password, wanted = (fields.get(key, [""])[0] for key in ("name", "password", "next"))
            identity = await run_in_threadpool(self._authenticator.authenticate, name, password)
        except NoriaError as error:
            return self.page(error, name=name, wanted=wanted)
        return await self.welcome(request, identity, wanted)

    async def welcome(self, request: Request, identity: Identity, wanted: str = "") -> Response:
        """Begin a session, at the page that was asked for; what is no page of the console is passed over."""
        lifetime = timedelta(hours=self._settings.session_hours)
        token = await run_in_threadpool(self._new_session, identity.name, lifetime)
        answer = RedirectResponse(wanted if wanted.startswith(PAGES) else "/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, token, max_age=int(lifetime.total_seconds()), httponly=True, samesite="lax", secure=secure
        )
        return answer

    async def leave(self, request: Request) -> Response:
        if (session := tokens.split(request.cookies.get(COOKIE, ""))) is not None:
            await run_in_threadpool(self._end_session, session[0], request)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def _new_session(self, name: str, lifetime: timedelta) -> str:
        now = self.clock.now()
        with self.database.write() as tx:
            return tokens.create_token(tx, name, label="console", at=now, actor=name, expires_at=now + lifetime)

    def _end_session(self, token_id: str, request: Request) -> None:
        identity: Identity = request.scope["state"]["identity"]
        with self.database.write() as tx:
            tokens.revoke_token(tx, token_id, at=self.clock.now(), actor=identity.name)


class _OidcFlow:
    """The authorization code flow with PKCE; its state lives in a cookie of the browser that began it."""

    def __init__(self, desk: _Desk, settings: OidcSettings) -> None:
        self._desk, self._settings = desk, settings
        self._issuer = oidc.Issuer(settings.issuer, settings.client_id, settings.client_secret)

    async def begin(self, request: Request) -> Response:
        """Send the browser to the issuer."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        try:
            url = await run_in_threadpool(self._issuer.sign_in_url, _callback(request), state, nonce, verifier)
        except NoriaError as error:
            return self._desk.page(error)
        answer = RedirectResponse(url, 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            _FLOW_COOKIE,
            f"{state}.{nonce}.{verifier}.{quote(request.query_params.get('next', '')[:_LONGEST_PATH])}",
            max_age=_FLOW_SECONDS,
            httponly=True,
            samesite="lax",
            secure=secure,
        )
        return answer

    async def end(self, request: Request) -> Response:
        """Take what the issuer says of the user."""
        try:
            begun = request.cookies.get(_FLOW_COOKIE, "").split(".", 3)
            state, nonce, verifier, wanted = [*begun, "", "", "", ""][:4]
            if not state or not hmac.compare_digest(state, request.query_params.get("state", "")):
                raise Unauthenticated("this sign-in was not begun here", remedy="Begin again.")
            if refused := request.query_params.get("error"):
                raise Unauthenticated(f"the issuer says {refused[:200]}", remedy="Begin again, or ask its admin.")
            code = request.query_params.get("code", "")
            claims = await run_in_threadpool(self._issuer.claims, code, _callback(request), nonce, verifier)
            identity = await run_in_threadpool(self._admit, claims)
        except NoriaError as error:
            return self._desk.page(error)
        answer = await self._desk.welcome(request, identity, unquote(wanted))
        answer.delete_cookie(_FLOW_COOKIE)
        return answer

    def _admit(self, claims: oidc.Claims) -> Identity:
        """The user of these claims, made when new; the issuer's groups are its roles from now on."""
        settings, name = self._settings, str(claims.get(self._settings.name_claim, ""))
        if claims.get("email_verified") is False and settings.name_claim == "email":
            raise Unauthenticated("the issuer has not verified this email address", remedy="Verify it there.")
        groups = claims.get(settings.roles_claim, [])
        known = groups if isinstance(groups, list) else []
        roles = {str(settings.roles[group]) for group in known if group in settings.roles} or {settings.default_role}
        grants = [Grant(Role(role)) for role in sorted(roles) if role]
        now = self._desk.clock.now()
        with self._desk.database.write() as tx:
            user = users.find_user(tx, name)
            if user is None:
                user = users.add_user(tx, name, at=now, actor=settings.issuer, origin=settings.issuer)
            if user.origin != settings.issuer or user.disabled:
                raise Forbidden(f"{name!r} may not sign in through this issuer", remedy="Ask an admin.")
            users.sync_grants(tx, name, grants, at=now, actor=settings.issuer)
        return Identity(name, grants)


def _callback(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}/login/oidc/callback"
