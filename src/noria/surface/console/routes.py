"""The console's routes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from noria.access import Identity, Permission
from noria.audit.watch import ChainWatch
from noria.clock import Clock
from noria.errors import NoriaError, NotFound
from noria.lifecycle.rolling_back import Seen, roll_back
from noria.lifecycle.rollouts import Rollouts
from noria.registry import Policies
from noria.rollout import current_routes
from noria.rollout.records import get_rollout
from noria.store.workspace import Workspace
from noria.surface.console.chart import HEIGHT, WIDTH
from noria.surface.console.overview import gather
from noria.surface.console.pages import HEADERS, template
from noria.surface.console.rollouts import gather_rollout
from noria.surface.errors import outside
from noria.surface.http.bodies import read_body
from noria.surface.http.guard import COOKIE, identity_of

_LARGEST_FORM_BYTES = 10_000


def console_routes(workspace: Workspace, policies: Policies, clock: Clock) -> list[BaseRoute]:
    """The overview at ``/``, a page for each rollout, and what their buttons ask for."""
    pages = _Pages(workspace, policies, clock)
    return [
        Route("/", pages.overview, methods=["GET"]),
        Route("/deployments/{name}/rollback", pages.roll_back, methods=["POST"]),
        Route("/deployments/{name}/rollback", _back, methods=["GET"]),
        Route("/rollouts/{rollout_id}", pages.rollout, methods=["GET"]),
        Route("/rollouts/{rollout_id}/{action}", pages.change, methods=["POST"]),
        Route("/rollouts/{rollout_id}/{action}", _back, methods=["GET"]),
    ]


async def _back(request: Request) -> Response:
    """From a button's address, where a refusal leaves the browser, to the page that has the button."""
    rollout_id = request.path_params.get("rollout_id")
    return RedirectResponse("/" if rollout_id is None else f"/rollouts/{quote(rollout_id)}", 303)


class _Pages:
    """Pages and buttons, under the identity of who sits before them."""

    def __init__(self, workspace: Workspace, policies: Policies, clock: Clock) -> None:
        self._workspace, self._policies, self._clock = workspace, policies, clock
        self._watch = ChainWatch(workspace.database, clock)
        rollouts = Rollouts(workspace, policies, clock)
        self._changes: Mapping[str, Callable[..., object]] = {
            "pause": rollouts.pause,
            "resume": rollouts.resume,
            "promote": rollouts.promote,
            "abort": rollouts.abort,
        }

    def overview(self, request: Request) -> Response:
        identity_of(request).require(Permission.READ)
        return self._overview(request, None)

    def rollout(self, request: Request) -> Response:
        return self._rollout(request, None)

    async def roll_back(self, request: Request) -> Response:
        """Take the traffic of a deployment back."""
        name, reason = request.path_params["name"], await _reason(request)
        try:
            await run_in_threadpool(self._roll_back, identity_of(request), name, reason, _seen(request))
        except NoriaError as error:
            return await run_in_threadpool(self._overview, request, error)
        return RedirectResponse("/", 303)

    async def change(self, request: Request) -> Response:
        """Pause, resume, promote or abort a rollout."""
        rollout_id, reason = request.path_params["rollout_id"], await _reason(request)
        try:
            change = self._change_asked(request)
            await run_in_threadpool(self._change, change, identity_of(request), rollout_id, reason)
        except NoriaError as error:
            return await run_in_threadpool(self._rollout, request, error)
        return RedirectResponse(f"/rollouts/{quote(rollout_id)}", 303)

    def _change_asked(self, request: Request) -> Callable[..., object]:
        """What a button does; that of promotion may name the challenger."""
        action, version = request.path_params["action"], _number(request, "version")
        if (change := self._changes.get(action)) is None:
            raise _no_button()
        return functools.partial(change, version=version) if version is not None and action == "promote" else change

    def _roll_back(self, identity: Identity, name: str, reason: str, seen: Seen | None) -> None:
        with self._workspace.database.read() as tx:
            routes = current_routes(tx, name)
        if routes is None:
            raise NotFound(f"there is no deployment {name!r}", remedy="Reload the page.")
        identity.require(Permission.MAINTAIN, routes.variants[0].model)
        roll_back(self._workspace, self._policies, self._clock, name, actor=identity.name, reason=reason, seen=seen)

    def _change(self, change: Callable[..., object], identity: Identity, rollout_id: str, reason: str) -> None:
        with self._workspace.database.read() as tx:
            found = get_rollout(tx, rollout_id)
        identity.require(Permission.MAINTAIN, found.model)
        change(found.rollout_id, actor=identity.name, reason=reason)

    def _overview(self, request: Request, fault: NoriaError | None) -> Response:
        overview = gather(self._workspace.database, self._watch, identity_of(request))
        return _page(request, "overview.html", fault, overview=overview, width=WIDTH, height=HEIGHT)

    def _rollout(self, request: Request, fault: NoriaError | None) -> Response:
        identity = identity_of(request)
        with self._workspace.database.read() as tx:
            model = get_rollout(tx, request.path_params["rollout_id"]).model
            identity.require(Permission.READ, model)
            may_change = identity.may(Permission.MAINTAIN, model)
            page = gather_rollout(tx, request.path_params["rollout_id"], self._clock.now(), may_change=may_change)
        return _page(request, "rollout.html", fault, page=page)


def _page(request: Request, name: str, fault: NoriaError | None, **content: object) -> Response:
    signed_in = identity_of(request).name if COOKIE in request.cookies else ""
    page = template(name).render(signed_in=signed_in, fault=fault, **content)
    return HTMLResponse(page, 200 if fault is None else outside(fault).status, HEADERS)


def _seen(request: Request) -> Seen | None:
    """What the page showed whose button this is; None of a program, which has none."""
    champion = _number(request, "champion")
    return None if champion is None else Seen(champion, request.query_params.get("rollout", ""))


def _number(request: Request, name: str) -> int | None:
    """The version in a button's address, None without one. Raises NotFound for what is none."""
    text = request.query_params.get(name, "")
    if text and not (text.isdecimal() and len(text) < 9):
        raise _no_button()
    return int(text) if text else None


def _no_button() -> NotFound:
    return NotFound("there is no such button", remedy="Reload the page.")


async def _reason(request: Request) -> str:
    body = await read_body(request, largest=_LARGEST_FORM_BYTES)
    return parse_qs(body.decode(errors="replace")).get("reason", [""])[0].strip()[:300] or "no reason given"
