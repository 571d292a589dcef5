"""The routes that a rollout's state asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from noria.lifecycle.looks import CANARY, CHAMPION
from noria.lifecycle.served_forms import variant_of
from noria.registry import get_version
from noria.registry.models import aliases, set_alias
from noria.rollout import Rollout, Strategy, Variant, set_routes
from noria.rollout.deployments import find_deployment
from noria.rollout.records import ROLLED_BACK
from noria.store.database import Transaction

_NAMES = {Strategy.CANARY: CANARY, Strategy.BLUE_GREEN: "green", Strategy.SHADOW: "shadow"}


def route(tx: Transaction, rollout: Rollout, *, at: datetime, actor: str, reason: str) -> int:
    """Make the routes say what the rollout's state says; their revision."""
    return _set(tx, rollout, _variants(tx, rollout), at, actor, reason)


def route_to(tx: Transaction, rollout: Rollout, version: int, *, at: datetime, actor: str, reason: str) -> int:
    """Give one of the rollout's versions all the traffic; the revision of the routes."""
    return _set(tx, rollout, [_variant(tx, rollout, version, CHAMPION, 100)], at, actor, reason)


def point_alias(tx: Transaction, rollout: Rollout, version: int, *, at: datetime, actor: str) -> None:
    """Let the alias that the deployment follows, if there is one, point at ``version``; one that is gone stays so."""
    record = find_deployment(tx, rollout.deployment)
    if record is None or not record.follows.startswith("@"):
        return
    alias = record.follows[1:]
    if aliases(tx, rollout.model).get(alias, version) != version:
        set_alias(tx, rollout.model, alias, version, at=at, actor=actor)


def _set(tx: Transaction, rollout: Rollout, variants: Sequence[Variant], at: datetime, actor: str, reason: str) -> int:
    record = find_deployment(tx, rollout.deployment)
    table = set_routes(
        tx,
        rollout.deployment,
        variants,
        at=at,
        actor=actor,
        reason=reason,
        salt=rollout.plan.salt if rollout.is_open else "",
        unit="" if record is None else record.unit,
    )
    return table.revision


def _variants(tx: Transaction, rollout: Rollout) -> Sequence[Variant]:
    if rollout.status == ROLLED_BACK:
        return [_variant(tx, rollout, rollout.champion, CHAMPION, 100)]
    strategy, share = rollout.plan.strategy, rollout.percent
    if strategy is Strategy.SHADOW:
        champion = _variant(tx, rollout, rollout.champion, CHAMPION, 100)
        return [champion, _variant(tx, rollout, rollout.challenger, "shadow", share, shadow=True)]
    share = 0.0 if strategy is Strategy.BLUE_GREEN else share
    champion = _variant(tx, rollout, rollout.champion, CHAMPION, 100 - share)
    each = share / len(rollout.challengers)
    challengers = [
        _variant(tx, rollout, number, _NAMES.get(strategy, f"v{number}"), each) for number in rollout.challengers
    ]
    return [champion, *challengers]


def _variant(
    tx: Transaction, rollout: Rollout, version: int, name: str, percent: float, *, shadow: bool = False
) -> Variant:
    return variant_of(tx, get_version(tx, rollout.model, version), name, percent, shadow=shadow)
