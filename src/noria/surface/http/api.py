"""Noria's own REST API, ``/api/noria/v1``: what MLflow's has no words for. Described in its ``openapi.json``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request

from noria import __version__, audit
from noria.access import Grant, Identity, Permission, Role, tokens, users
from noria.access.entities import Token, User
from noria.audit import AuditEntry, Verification
from noria.clock import Clock
from noria.config import RolloutSettings
from noria.errors import Forbidden, InvalidInput, NoriaError
from noria.lifecycle.rolling_back import roll_back
from noria.registry import ModelVersion, Policies, RegisteredModel, Stage, approve, get_version, list_versions
from noria.registry.approvals import approvals
from noria.registry.entities import Approval, Transition
from noria.registry.models import get_model, list_models
from noria.registry.stages import history, request_transition
from noria.store.workspace import Workspace
from noria.surface.errors import outside, problem
from noria.surface.http.guard import identity_of
from noria.surface.http.rollout_api import Body, Reason, add_rollouts

if TYPE_CHECKING:
    from fastapi import FastAPI

PREFIX = "/api/noria/v1"
_LARGEST_LIST = 1000
_Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Move(Body):
    """A stage to enter, and why."""

    stage: Stage
    reason: str = ""


class NewToken(Body):
    """What a token is for and how long it lives."""

    label: str = Field("", max_length=200)
    days: int = Field(90, ge=1, le=3650)


class MadeToken(BaseModel):
    """The token, the only time it is shown."""

    token: str
    expires_at: datetime


class NewUser(Body):
    """A user and its first role; without a password it signs in by token or issuer."""

    name: str
    password: str | None = None
    role: Role = Role.VIEWER
    models: str = "*"


class GivenRole(Body):
    """A role on the models of a pattern."""

    role: Role
    models: str = Field("*", max_length=250)


class LazyApi:
    """The API as an ASGI application that is built by its first request: most servers are asked in MLflow's words."""

    def __init__(self, workspace: Workspace, policies: Policies, clock: Clock, settings: RolloutSettings) -> None:
        self._make: Callable[[], FastAPI] = lambda: create_api(workspace, policies, clock, settings)
        self._made: FastAPI | None = None
        self._once = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        async with self._once:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        await self._made(scope, receive, send)


def create_api(workspace: Workspace, policies: Policies, clock: Clock, settings: RolloutSettings) -> FastAPI:
    """The routes. Every change goes through the registry's own functions, under the identity of who asks.

    ``settings`` are what rollouts are planned by.
    """
    from fastapi import FastAPI

    api = FastAPI(
        title="Noria",
        version=__version__,
        summary="Governance of models, deployments and rollouts, accounts and the audit trail.",
        docs_url=None,
        redoc_url=None,
        responses={
            "4XX": {"description": "A problem document (RFC 9457) that says what, why and what next."},
        },
    )
    _tell_errors(api)
    _add_models(api, workspace, policies, clock)
    add_rollouts(api, workspace, policies, clock, settings)
    _add_accounts(api, workspace, clock)
    _add_audit(api, workspace)
    return api


def _add_models(api: FastAPI, workspace: Workspace, policies: Policies, clock: Clock) -> None:
    database = workspace.database

    @api.get("/models")
    def models(request: Request) -> list[RegisteredModel]:
        """The models the caller may read."""
        with database.read() as tx:
            return [model for model in list_models(tx) if identity_of(request).may(Permission.READ, model.name)]

    @api.get("/models/{name}/versions")
    def versions(name: str, request: Request) -> list[ModelVersion]:
        """A model's versions, oldest first."""
        identity_of(request).require(Permission.READ, name)
        with database.read() as tx:
            get_model(tx, name)
            return list_versions(tx, name)

    @api.get("/models/{name}/history")
    def moves(name: str, request: Request) -> list[Transition]:
        """A model's stage moves, oldest first."""
        identity_of(request).require(Permission.READ, name)
        with database.read() as tx:
            get_model(tx, name)
            return history(tx, name)

    @api.get("/models/{name}/versions/{version}/approvals")
    def given(name: str, version: _Number, request: Request) -> list[Approval]:
        """Who consented that the version enters which stage."""
        identity_of(request).require(Permission.READ, name)
        with database.read() as tx:
            get_version(tx, name, version)
            return approvals(tx, name, version)

    @api.post("/models/{name}/versions/{version}/approvals", status_code=201)
    def consent(name: str, version: _Number, move: Move, request: Request) -> list[Approval]:
        """Consent, in the caller's own name and roles."""
        identity_of(request).require(Permission.APPROVE, name)
        with database.write() as tx:
            approve(
                tx,
                name,
                version,
                move.stage,
                at=clock.now(),
                actor=identity_of(request).name,
                reason=move.reason,
                roles=identity_of(request).roles(name),
            )
            return approvals(tx, name, version)

    @api.post("/models/{name}/versions/{version}/transitions")
    def transition(name: str, version: _Number, move: Move, request: Request) -> ModelVersion:
        """Move a version to a stage, when the policy allows."""
        identity_of(request).require(Permission.MAINTAIN, name)
        return request_transition(
            database,
            name,
            version,
            move.stage,
            policies=policies,
            at=clock.now(),
            actor=identity_of(request).name,
            reason=move.reason,
        )

    @api.post("/models/{name}/rollback")
    def rollback(name: str, why: Reason, request: Request) -> ModelVersion:
        """Put the healthy version before the current one back into Production, with all the traffic."""
        identity_of(request).require(Permission.MAINTAIN, name)
        with database.read() as tx:
            get_model(tx, name)
        actor = identity_of(request).name
        return roll_back(workspace, policies, clock, name, actor=actor, reason=why.reason).version


def _add_accounts(api: FastAPI, workspace: Workspace, clock: Clock) -> None:
    database = workspace.database

    @api.get("/whoami")
    def whoami(request: Request) -> Identity:
        """The caller and its roles."""
        return identity_of(request)

    @api.get("/tokens")
    def own_tokens(request: Request) -> list[Token]:
        """The caller's API tokens, without their secrets."""
        with database.read() as tx:
            return tokens.list_tokens(tx, identity_of(request).name)

    @api.post("/tokens", status_code=201)
    def new_token(wanted: NewToken, request: Request) -> MadeToken:
        """An API token of the caller, shown this once."""
        now = clock.now()
        expires_at = now + timedelta(days=wanted.days)
        with database.write() as tx:
            token = tokens.create_token(
                tx,
                identity_of(request).name,
                label=wanted.label,
                at=now,
                actor=identity_of(request).name,
                expires_at=expires_at,
            )
        return MadeToken(token=token, expires_at=expires_at)

    @api.delete("/tokens/{token_id}", status_code=204)
    def end_token(token_id: str, request: Request) -> None:
        """End a token: one's own, or as an admin anybody's."""
        with database.write() as tx:
            own = any(token.token_id == token_id for token in tokens.list_tokens(tx, identity_of(request).name))
            if not own:
                identity_of(request).require(Permission.ADMINISTER)
            tokens.revoke_token(tx, token_id, at=clock.now(), actor=identity_of(request).name)

    @api.get("/users")
    def everybody(request: Request) -> list[User]:
        """All users and their roles."""
        identity_of(request).require(Permission.ADMINISTER)
        with database.read() as tx:
            return users.list_users(tx)

    @api.post("/users", status_code=201)
    def new_user(wanted: NewUser, request: Request) -> User:
        """Add a user."""
        identity_of(request).require(Permission.ADMINISTER)
        grants = [Grant(wanted.role, wanted.models)]
        with database.write() as tx:
            return users.add_user(
                tx,
                wanted.name,
                at=clock.now(),
                actor=identity_of(request).name,
                password=wanted.password,
                grants=grants,
            )

    @api.post("/users/{name}/roles", status_code=201)
    def give_role(name: str, role: GivenRole, request: Request) -> User:
        """Give a role."""
        identity_of(request).require(Permission.ADMINISTER)
        with database.write() as tx:
            users.grant(tx, name, Grant(role.role, role.models), at=clock.now(), actor=identity_of(request).name)
            return users.get_user(tx, name)

    @api.delete("/users/{name}/roles", status_code=200)
    def take_role(name: str, role: Role, request: Request, models: str = "*") -> User:
        """Take a role back; nobody takes their own last hold on the workspace."""
        identity_of(request).require(Permission.ADMINISTER)
        if name == identity_of(request).name and role is Role.ADMIN:
            raise Forbidden("nobody takes the admin role from themselves", remedy="Ask another admin.")
        with database.write() as tx:
            users.revoke(tx, name, Grant(role, models), at=clock.now(), actor=identity_of(request).name)
            return users.get_user(tx, name)


def _add_audit(api: FastAPI, workspace: Workspace) -> None:
    database = workspace.database

    @api.get("/audit")
    def entries(
        request: Request,
        limit: Annotated[int, Field(ge=1, le=_LARGEST_LIST)] = 100,
        about: Annotated[str, Field(max_length=500)] = "",
    ) -> list[AuditEntry]:
        """The newest entries of the audit trail; with ``about``, of those that name it, such as ``run:ID``."""
        identity_of(request).require(Permission.ADMINISTER)
        with database.read() as tx:
            return audit.entries(tx, limit=limit, about=about)

    @api.get("/audit/verification")
    def verification(request: Request) -> Verification:
        """Walk the whole chain and hold the records against it."""
        identity_of(request).require(Permission.ADMINISTER)
        with database.read() as tx:
            return audit.verify(tx)


def _tell_errors(api: FastAPI) -> None:
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    def refuse(error: NoriaError, status: int | None = None) -> JSONResponse:
        return JSONResponse(
            problem(error, status), status or outside(error).status, media_type="application/problem+json"
        )

    @api.exception_handler(NoriaError)
    def known(_request: Request, error: NoriaError) -> JSONResponse:
        return refuse(error)

    @api.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        findings = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        return refuse(InvalidInput("the request does not fit", details=findings, remedy="See openapi.json."), 422)
