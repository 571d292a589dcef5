"""Deployments and rollouts over ``/api/noria/v1``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from noria.access import Permission
from noria.clock import Clock
from noria.config import RolloutSettings
from noria.errors import NotFound
from noria.lifecycle.deploying import challengers_of, deploy, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rolling_back import roll_back
from noria.lifecycle.rollouts import Rollouts
from noria.registry import ModelVersion, Policies
from noria.registry.models import find_model
from noria.rollout import Rollout, RouteTable, Strategy
from noria.rollout.deployments import (
    Deployment,
    GatewayKey,
    add_key,
    all_deployments,
    drop_keys,
    find_deployment,
    get_deployment,
    list_keys,
    own_name,
    revoke_key,
    routes_now,
    tell_gateways,
    withdraw,
)
from noria.rollout.records import (
    RolloutDecision,
    RolloutStep,
    get_rollout,
    list_decisions,
    list_rollouts,
    list_steps,
    seen_last,
    share_history,
)
from noria.rollout.route_records import route_revision
from noria.store.database import Database, Transaction
from noria.store.workspace import Workspace
from noria.surface.http.guard import identity_of

if TYPE_CHECKING:
    from fastapi import FastAPI


class Body(BaseModel):
    """What a request may hold, and no more."""

    model_config = ConfigDict(extra="forbid", str_max_length=5000)


class Reason(Body):
    """Why."""

    reason: str = Field(min_length=1)


class Rollback(Reason):
    """Why, and what is to be taken back."""

    revision: int | None = Field(
        None, ge=1, description="Of the routes that are to be taken back; what serves by now instead is left alone."
    )


class NewDeployment(Body):
    """What to serve: models:/NAME/3, models:/NAME/Production or models:/NAME@alias."""

    model: str
    unit: str = ""
    reason: str = ""


class DeploymentState(BaseModel):
    """A deployment, and its routes unless it is served no longer."""

    deployment: Deployment
    routes: RouteTable | None


class Deployed(BaseModel):
    """What serves now, and how its files were prepared."""

    version: ModelVersion
    routes: RouteTable
    prepared: list[str]


class NewKey(Body):
    """Whose key it is."""

    name: str = Field("", max_length=200)


class MadeKey(BaseModel):
    """The key, the only time it is shown."""

    key_id: str
    key: str


class NewRollout(Body):
    """Versions to send out beside the one that serves; what is not said comes from the settings."""

    versions: list[str] = Field(min_length=1, description="models:/NAME/4; several for ab and bandit.")
    strategy: Strategy = Strategy.CANARY
    deployment: str = ""
    steps: list[float] = []
    min_minutes: float | None = None
    max_days: float | None = None
    required: list[str] | None = None
    promotes: bool = True
    effect: float | None = None
    metric: str | None = Field(None, description="Which rewards count; 'reward' by default.")
    window_minutes: float | None = Field(None, description="Minutes until a unit's reward is final; 60 by default.")
    algorithm: str | None = Field(None, description="thompson (the default), epsilon-greedy or linucb.")
    floor: float | None = Field(None, description="Share that each arm keeps; 0.05 by default.")
    epsilon: float | None = Field(None, description="Share that epsilon-greedy explores with; 0.1 by default.")
    rewards: Literal["binary", "real"] | None = None
    reason: str = ""


class Promotion(Reason):
    """Why, and which challenger where there are several."""

    version: int | None = Field(None, ge=1)


class RolloutStory(BaseModel):
    """A rollout, what it went through, and what the newest look saw: of an ended one, what it ended by."""

    rollout: Rollout
    steps: list[RolloutStep]
    decisions: list[RolloutDecision]
    looked_at: datetime | None
    look: Mapping[str, Any] | None
    shares: list[tuple[datetime, Mapping[str, float]]]


def add_rollouts(
    api: FastAPI, workspace: Workspace, policies: Policies, clock: Clock, settings: RolloutSettings
) -> None:
    """The routes; every change goes through the functions that the command line calls, under the caller's name."""
    _add_deployments(api, workspace, policies, clock)
    _add_keys(api, workspace, clock)
    _add_starting(api, workspace, policies, clock, settings)
    _add_changes(api, workspace, policies, clock)


def _add_deployments(api: FastAPI, workspace: Workspace, policies: Policies, clock: Clock) -> None:
    database = workspace.database

    @api.get("/deployments")
    def deployments(request: Request) -> list[DeploymentState]:
        """The deployments of models that the caller may read."""
        with database.read() as tx:
            found = [one for one in all_deployments(tx) if identity_of(request).may(Permission.READ, one.model)]
            return [DeploymentState(deployment=one, routes=_routes(tx, one)) for one in found]

    @api.get("/deployments/{name}")
    def deployment(name: str, request: Request) -> DeploymentState:
        """One deployment."""
        with database.read() as tx:
            found = get_deployment(tx, name)
            identity_of(request).require(Permission.READ, found.model)
            return DeploymentState(deployment=found, routes=_routes(tx, found))

    @api.put("/deployments/{name}")
    def serve(name: str, wanted: NewDeployment, request: Request) -> Deployed:
        """Prepare a version and give it all the traffic of this name; an alias or stage is followed from then on."""
        address = parse_address(wanted.model)
        identity_of(request).require(Permission.MAINTAIN, address.model)
        _own(database, name, request)
        done = deploy(
            workspace,
            policies,
            clock,
            address,
            actor=identity_of(request).name,
            reason=wanted.reason,
            deployment=name,
            unit=wanted.unit,
        )
        return Deployed(version=done.version, routes=done.routes, prepared=list(done.notes))

    @api.delete("/deployments/{name}", status_code=204)
    def end(name: str, request: Request, reason: str = "") -> None:
        """Serve a deployment no longer."""
        _own(database, name, request)
        with database.write() as tx:
            withdraw(tx, name, at=clock.now(), actor=identity_of(request).name, reason=reason)
        tell_gateways(workspace, name)

    @api.post("/deployments/{name}/rollback")
    def back(name: str, why: Rollback, request: Request) -> ModelVersion:
        """Take the traffic back at once: end the rollout under way, else go back to the version before.

        With a revision it is safe to ask again; without, each request goes back one more.
        """
        _own(database, name, request)
        actor, since = identity_of(request).name, _served_since(database, name, why.revision)
        done = roll_back(workspace, policies, clock, name, actor=actor, reason=why.reason, asked_at=since)
        return done.version


def _add_keys(api: FastAPI, workspace: Workspace, clock: Clock) -> None:
    database = workspace.database

    @api.get("/deployments/{name}/keys")
    def keys(name: str, request: Request) -> list[GatewayKey]:
        """The keys of a deployment, without their secrets."""
        _own(database, name, request)
        with database.read() as tx:
            return list_keys(tx, name)

    @api.post("/deployments/{name}/keys", status_code=201)
    def new_key(name: str, wanted: NewKey, request: Request) -> MadeKey:
        """Make a key, shown this once; from the first one on, requests without a key are refused."""
        _own(database, name, request)
        with database.write() as tx:
            key, secret = add_key(tx, name, wanted.name, at=clock.now(), actor=identity_of(request).name)
        tell_gateways(workspace, name)
        return MadeKey(key_id=key.key_id, key=secret)

    @api.delete("/deployments/{name}/keys/{key_id}", status_code=204)
    def end_key(name: str, key_id: str, request: Request) -> None:
        """Take a key's right away; without any left, nobody is let in."""
        _own(database, name, request)
        with database.write() as tx:
            if all(key.key_id != key_id for key in list_keys(tx, name)):
                raise NotFound(f"{name!r} has no key {key_id!r}", remedy="List its keys.")
            revoke_key(tx, key_id, at=clock.now(), actor=identity_of(request).name)
        tell_gateways(workspace, name)

    @api.delete("/deployments/{name}/keys", status_code=204)
    def forget_keys(name: str, request: Request) -> None:
        """Forget all keys: requests need none again."""
        _own(database, name, request)
        with database.write() as tx:
            drop_keys(tx, name, at=clock.now(), actor=identity_of(request).name)
        tell_gateways(workspace, name)


def _add_starting(
    api: FastAPI, workspace: Workspace, policies: Policies, clock: Clock, settings: RolloutSettings
) -> None:
    database = workspace.database

    @api.get("/rollouts")
    def rollouts(request: Request, deployment: str | None = None) -> list[Rollout]:
        """The rollouts of models that the caller may read, newest first."""
        with database.read() as tx:
            found = reversed(list_rollouts(tx, deployment))
            return [one for one in found if identity_of(request).may(Permission.READ, one.model)]

    @api.post("/rollouts", status_code=201)
    def start(wanted: NewRollout, request: Request) -> Rollout:
        """Send versions out; `noria worker` judges them."""
        model, numbers = challengers_of(wanted.versions)
        identity_of(request).require(Permission.MAINTAIN, model)
        options = wanted.model_dump(exclude={"versions", "strategy", "deployment", "reason"})
        plan = planned(settings, wanted.strategy, **options)
        with database.read() as tx:
            name = wanted.deployment or own_name(tx, model)
        return Rollouts(workspace, policies, clock).start(
            name, numbers, plan, actor=identity_of(request).name, reason=wanted.reason
        )

    @api.get("/rollouts/{rollout_id}")
    def story(rollout_id: str, request: Request) -> RolloutStory:
        """A rollout's plan, steps, decisions and newest look, with the evidence of each."""
        with database.read() as tx:
            found = get_rollout(tx, rollout_id)
            identity_of(request).require(Permission.READ, found.model)
            look = seen_last(tx, found)
            return RolloutStory(
                rollout=found,
                steps=list_steps(tx, found.rollout_id),
                decisions=list_decisions(tx, found.rollout_id),
                looked_at=None if look is None else look[1],
                look=None if look is None else look[0],
                shares=share_history(tx, found.rollout_id),
            )


def _add_changes(api: FastAPI, workspace: Workspace, policies: Policies, clock: Clock) -> None:
    rollouts = Rollouts(workspace, policies, clock)

    def mine(rollout_id: str, request: Request) -> str:
        with workspace.database.read() as tx:
            found = get_rollout(tx, rollout_id)
        identity_of(request).require(Permission.MAINTAIN, found.model)
        return found.rollout_id

    @api.post("/rollouts/{rollout_id}/pause")
    def pause(rollout_id: str, why: Reason, request: Request) -> Rollout:
        """Leave the shares as they are and decide nothing."""
        found = mine(rollout_id, request)
        return rollouts.pause(found, actor=identity_of(request).name, reason=why.reason)

    @api.post("/rollouts/{rollout_id}/resume")
    def resume(rollout_id: str, why: Reason, request: Request) -> Rollout:
        """Go on with a paused rollout."""
        found = mine(rollout_id, request)
        return rollouts.resume(found, actor=identity_of(request).name, reason=why.reason)

    @api.post("/rollouts/{rollout_id}/promote")
    def promote(rollout_id: str, why: Promotion, request: Request) -> Rollout:
        """Give a challenger all the traffic, and Production under policy."""
        found = mine(rollout_id, request)
        actor = identity_of(request).name
        return rollouts.promote(found, actor=actor, reason=why.reason, version=why.version)

    @api.post("/rollouts/{rollout_id}/abort")
    def abort(rollout_id: str, why: Reason, request: Request) -> Rollout:
        """Give the champion all the traffic again, at once."""
        found = mine(rollout_id, request)
        return rollouts.abort(found, actor=identity_of(request).name, reason=why.reason)


def _own(database: Database, name: str, request: Request) -> None:
    """Whoever changes a deployment maintains the model that it serves now, and the one whose name it has."""
    with database.read() as tx:
        found = find_deployment(tx, name)
        models = {found.model} if found is not None else {name} if find_model(tx, name) is not None else set()
    for model in models:
        identity_of(request).require(Permission.MAINTAIN, model)


def _served_since(database: Database, name: str, revision: int | None) -> datetime | None:
    """When routes began to serve; None of none. Raises NotFound."""
    if revision is None:
        return None
    with database.read() as tx:
        routes = route_revision(tx, name, revision)
    if routes is None:
        raise NotFound(f"{name!r} never had routes of revision {revision}", remedy="GET /deployments/NAME tells it.")
    return routes.created_at


def _routes(tx: Transaction, found: Deployment) -> RouteTable | None:
    return None if found.withdrawn_at is not None else routes_now(tx, found.deployment)
