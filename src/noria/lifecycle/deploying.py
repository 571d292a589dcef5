"""Deploying: giving a version, an alias or a stage of a model a name under which it is served."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from noria.clock import Clock
from noria.errors import Conflict, InvalidInput, NoriaError, NotFound
from noria.lifecycle.looks import CHAMPION
from noria.lifecycle.served_forms import check_preview, make_servable, variant_of
from noria.lifecycle.troubles import Troubles
from noria.registry import ModelVersion, Policies, Stage, get_version, list_versions, transition, version_in_stage
from noria.registry.models import aliases, get_model
from noria.registry.stages import gated, parse_stage
from noria.rollout import RouteTable, current_routes, set_routes
from noria.rollout.deployments import Deployment, all_deployments, own_name, save_deployment, tell_gateways
from noria.rollout.moves import check_none_open
from noria.rollout.records import open_rollout
from noria.store.database import Transaction
from noria.store.workspace import Workspace

_ADDRESS = re.compile(r"^(?:models:/)?(?P<model>[^/@]+)(?:/(?P<place>[^/@]+)|@(?P<alias>[^/@]+))?$")


@dataclass(frozen=True, slots=True)
class Address:
    """What is to be served: a version by number, or what an alias (@name) or a stage of the model points at."""

    model: str
    version: int | None = None
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is served now, and what there was to say about preparing it."""

    version: ModelVersion
    routes: RouteTable
    notes: Sequence[str]


def parse_address(text: str) -> Address:
    """``models:/NAME/3``, ``models:/NAME/Production``, ``models:/NAME@alias`` or ``NAME`` (its Production version).

    Raises InvalidInput for anything else.
    """
    match = _ADDRESS.match(text)
    if match is None:
        raise InvalidInput(
            f"{text!r} names no model", remedy="Write models:/NAME/3, models:/NAME/Production or models:/NAME@alias."
        )
    model, place, alias = match["model"], match["place"], match["alias"]
    if alias is not None:
        return Address(model, follows=f"@{alias}")
    if place is not None and place.isdigit():
        return Address(model, version=int(place))
    return Address(model, follows=(Stage.PRODUCTION if place is None else parse_stage(place)).value)


def challengers_of(addresses: Sequence[str]) -> tuple[str, Sequence[int]]:
    """The model and the numbers of versions that are to be sent out. Raises InvalidInput unless they are of one."""
    named = [parse_address(address) for address in addresses]
    numbers = [one.version for one in named if one.version is not None]
    if len({one.model for one in named}) != 1 or len(numbers) < len(named):
        raise InvalidInput(
            "a rollout is between versions of one model", remedy="Name them by number, as in models:/NAME/4."
        )
    return named[0].model, numbers


def deploy(
    workspace: Workspace,
    policies: Policies,
    clock: Clock,
    address: Address,
    *,
    actor: str,
    reason: str,
    deployment: str = "",
    unit: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Deployed:
    """Serve what ``address`` names as ``deployment``, or under the model's own name when none is given.

    A version named by number enters Production with it, under policy, when it is served under the model's own name.
    Under another name it stays in its stage, unless the policy wants no previews. Raises PolicyRefused, NotFound,
    Conflict while a rollout is under way or when another version was deployed meanwhile, and what preparing raises.
    """
    with workspace.database.read() as tx:
        get_model(tx, address.model)
        primary = own_name(tx, address.model)
        name = deployment or primary
        version, before = version_of(tx, address), current_routes(tx, name)
        check_none_open(tx, name)
    notes = make_servable(workspace, version, at=clock.now(), actor=actor, progress=progress)
    enters, why = name == primary and address.version is not None, reason or f"deployed as {name}"
    if not enters:
        check_preview(policies, version)
    with gated(workspace.database, at=clock.now(), actor=actor, reason=why) as tx:
        check_none_open(tx, name)
        _check_not_overtaken(tx, name, version, before)
        if enters:
            version = transition(
                tx,
                version.model,
                version.version,
                Stage.PRODUCTION,
                policies=policies,
                at=clock.now(),
                actor=actor,
                reason=why,
            )
        save_deployment(tx, name, version.model, follows=address.follows, unit=unit, at=clock.now(), actor=actor)
        routes = _set(tx, name, version, unit, clock, actor, reason or f"{version.label} deployed")
    tell_gateways(workspace, name)
    return Deployed(version, routes, notes)


def _check_not_overtaken(tx: Transaction, name: str, version: ModelVersion, before: RouteTable | None) -> None:
    """Of two that deploy different versions at once, the second would take the first one's away unseen."""
    now = current_routes(tx, name)
    if now is None or now == before or now.variants[0].version == version.version:
        return
    raise Conflict(
        f"version {now.variants[0].version} was deployed as {name!r} meanwhile, by revision {now.revision}",
        remedy="If yours is to replace it, deploy it again.",
    )


def follow(workspace: Workspace, policies: Policies, clock: Clock, *, actor: str, troubles: Troubles) -> None:
    """Bring every deployment that follows an alias or a stage to what that points at now.

    One with a rollout under way is left alone: it decides against the version it was started with. What fails is told
    to ``troubles``, and what served before goes on.
    """
    with workspace.database.read() as tx:
        records = [one for one in all_deployments(tx) if one.follows and one.withdrawn_at is None]
    for record in records:
        try:
            _follow(workspace, policies, clock, record, actor)
            troubles.end(record.deployment)
        except NoriaError as error:
            troubles.begin(record.deployment, error.message)


def _follow(workspace: Workspace, policies: Policies, clock: Clock, record: Deployment, actor: str) -> None:
    address = Address(record.model, follows=record.follows)
    with workspace.database.read() as tx:
        version, routes = version_of(tx, address), current_routes(tx, record.deployment)
        if routes is not None and routes.variants[0].version == version.version:
            return
        if open_rollout(tx, record.deployment) is not None:
            return
    check_preview(policies, version)
    make_servable(workspace, version, at=clock.now(), actor=actor)
    with workspace.database.write() as tx:
        check_none_open(tx, record.deployment)
        reason = f"{record.follows} of {record.model} is version {version.version} now"
        _set(tx, record.deployment, version, record.unit, clock, actor, reason)
    tell_gateways(workspace, record.deployment)


def _set(
    tx: Transaction, name: str, version: ModelVersion, unit: str, clock: Clock, actor: str, reason: str
) -> RouteTable:
    variants = [variant_of(tx, version, CHAMPION, 100)]
    return set_routes(tx, name, variants, at=clock.now(), actor=actor, reason=reason, unit=unit)


def version_of(tx: Transaction, address: Address) -> ModelVersion:
    """The version an address names now. Raises NotFound."""
    model, follows = address.model, address.follows
    if address.version is not None:
        return get_version(tx, model, address.version)
    if follows.startswith("@"):
        known = aliases(tx, model)
        if (number := known.get(follows[1:])) is None:
            raise NotFound(
                f"model {model!r} has no alias {follows[1:]!r}",
                remedy=f"It has: {', '.join(sorted(known)) or 'none'}; `noria models alias` sets one.",
            )
        return get_version(tx, model, number)
    stage = parse_stage(follows)
    found = version_in_stage(tx, model, stage)
    if found is None:
        newest = max((one.version for one in list_versions(tx, model)), default=None)
        raise NotFound(
            f"model {model!r} has no version in {stage}",
            remedy=f"Name a version by its number, as in models:/{model}/{newest}." if newest else "Register one.",
        )
    return found
