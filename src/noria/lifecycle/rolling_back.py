"""Rolling back: one word that takes the traffic back, whatever state a deployment is in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from noria.clock import Clock
from noria.errors import Conflict, NotFound
from noria.lifecycle.looks import CHAMPION
from noria.lifecycle.rollouts import Rollouts
from noria.lifecycle.served_forms import make_servable, variant_of
from noria.registry import ModelVersion, Policies, get_version
from noria.registry.models import aliases, find_model, set_alias
from noria.registry.stages import roll_back as restore_production
from noria.registry.stages import rollback_target
from noria.rollout import current_routes, set_routes
from noria.rollout.deployments import check_served, find_deployment, own_name, serves_production, tell_gateways
from noria.rollout.records import list_rollouts, open_rollout
from noria.rollout.route_records import WENT_BACK, champion_at, earlier_champion
from noria.store.database import Transaction
from noria.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What has all the traffic again, and what was done for it."""

    deployment: str
    version: ModelVersion
    how: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody saw who asks to take it back: the version that serves most, and the rollout under way, if any."""

    champion: int
    rollout_id: str


@dataclass(frozen=True, slots=True)
class _Target:
    """What a deployment goes back to, and the alias that has to move for it; ``serves`` is false without routes."""

    deployment: str
    model: str
    version: int
    by_stage: bool
    alias: str
    unit: str
    serves: bool


def roll_back(
    workspace: Workspace,
    policies: Policies,
    clock: Clock,
    name: str,
    *,
    actor: str,
    reason: str,
    seen: Seen | None = None,
    asked_at: datetime | None = None,
) -> RolledBack:
    """Take the traffic back: from a rollout's challengers while one is under way, else from the version that serves.

    ``name`` is a deployment or a model. Under a model's own name, or where the deployment follows Production, the
    version goes back into Production that was there before; an alias moves back that the deployment follows; no policy
    is asked, as it was let in before. Where something else serves than was ``seen``, or than served at ``asked_at``, it
    has been taken back already, or promoted: nothing is done. Raises Conflict for that, and where there is nothing to
    go back to or nothing served, NotFound for an unknown name.
    """
    with workspace.database.read() as tx:
        deployment = name if find_deployment(tx, name) or current_routes(tx, name) else own_name(tx, name)
        check_served(tx, deployment)
        rollout = open_rollout(tx, deployment)
        champion = None if rollout is None else get_version(tx, rollout.model, rollout.champion)
        if asked_at is not None:
            seen = _seen_at(tx, deployment, asked_at, clock.now())
        if seen is not None:
            _check_seen(tx, deployment, seen)
    if rollout is not None and champion is not None:
        after = Rollouts(workspace, policies, clock).abort(rollout.rollout_id, actor=actor, reason=reason)
        return RolledBack(deployment, champion, f"rollout {after.rollout_id[:8]} aborted")
    with workspace.database.read() as tx:
        target = _target(tx, deployment)
        version = get_version(tx, target.model, target.version)
    if target.serves:
        make_servable(workspace, version, at=clock.now(), actor=actor, older_does=True)  # at once
    with workspace.database.write() as tx:
        if _target(tx, deployment) != target:
            raise Conflict(f"{deployment!r} changed meanwhile", remedy="See how it stands, then ask again.")
        restored = _restore(tx, target, clock, actor, reason)
    tell_gateways(workspace, deployment)
    return RolledBack(deployment, restored, "the version before serves")


def _seen_at(tx: Transaction, deployment: str, at: datetime, now: datetime) -> Seen | None:
    """What there was to see at that instant; None without routes then, or of routes that a clock ahead has dated."""
    routes, champion = current_routes(tx, deployment), champion_at(tx, deployment, at)
    if routes is None or champion is None or routes.created_at > now:
        return None
    under_way = [
        one.rollout_id
        for one in list_rollouts(tx, deployment)
        if one.started_at <= at and (one.ended_at is None or one.ended_at > at)
    ]
    return Seen(champion.version, under_way[-1] if under_way else "")


def _check_seen(tx: Transaction, deployment: str, seen: Seen) -> None:
    """A second click, or one beside the worker's own decision, would take back the version that serves well."""
    routes, rollout = current_routes(tx, deployment), open_rollout(tx, deployment)
    if routes is None or seen == Seen(routes.variants[0].version, "" if rollout is None else rollout.rollout_id):
        return
    raise Conflict(
        f"{deployment!r} has changed meanwhile: version {routes.variants[0].version} serves now, by "
        f"revision {routes.revision} ({routes.reason})",
        remedy="If that is to be taken back, ask again.",
    )


def _target(tx: Transaction, deployment: str) -> _Target:
    record, routes = find_deployment(tx, deployment), current_routes(tx, deployment)
    model = record.model if record else routes.variants[0].model if routes else _model_named(tx, deployment)
    follows = record.follows if record else ""
    by_alias = follows.startswith("@")
    by_stage = not by_alias and serves_production(tx, deployment, model)
    if by_stage:
        version = rollback_target(tx, model)
    else:
        earlier = earlier_champion(tx, deployment)
        version = None if earlier is None else earlier.version
    if version is None:
        raise Conflict(
            f"{deployment!r} has no earlier version to go back to",
            remedy=f"`noria models history {model}` shows which versions were in Production.",
        )
    alias = follows[1:] if by_alias else ""
    return _Target(deployment, model, version, by_stage, alias, record.unit if record else "", routes is not None)


def _model_named(tx: Transaction, name: str) -> str:
    if find_model(tx, name) is None:
        raise NotFound(
            f"there is no deployment {name!r}, nor a model of that name",
            remedy="`noria deploy list` shows the deployments.",
        )
    return name


def _restore(tx: Transaction, target: _Target, clock: Clock, actor: str, reason: str) -> ModelVersion:
    """Registry, alias and routes in one transaction."""
    now = clock.now()
    if target.by_stage:
        restore_production(tx, target.model, at=now, actor=actor, reason=reason)
    if target.alias in aliases(tx, target.model):  # one that somebody deleted stays so
        set_alias(tx, target.model, target.alias, target.version, at=now, actor=actor)
    restored = get_version(tx, target.model, target.version)
    if target.serves:
        variants = [variant_of(tx, restored, CHAMPION, 100)]
        why = f"{WENT_BACK} {reason}"
        set_routes(tx, target.deployment, variants, at=now, actor=actor, reason=why, unit=target.unit)
    return restored
