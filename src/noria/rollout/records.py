"""Rollouts under way and done: what they went through and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Row, select

from noria.clock import from_millis
from noria.errors import Conflict, NotFound
from noria.rollout.plan import Plan, Strategy, read_plan
from noria.rollout.route_records import current_routes
from noria.store.database import Transaction, from_json
from noria.store.tables import (
    bandit_shares,
    deployments,
    rollout_decisions,
    rollout_looks,
    rollout_steps,
    rollouts,
    route_tables,
)

RUNNING, PAUSED, PROMOTED, ROLLED_BACK = "running", "paused", "promoted", "rolled_back"
OPEN = (RUNNING, PAUSED)


class Decision(StrEnum):
    """What to do with a rollout after a look at its evidence."""

    WAIT = "wait"
    ADVANCE = "advance"
    ROLL_BACK = "roll_back"
    PROMOTE = "promote"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Rollout:
    """Challengers on their way; ``step`` counts from 0. ``winner`` is the version promoted, once one is."""

    rollout_id: str
    deployment: str
    model: str
    champion: int
    challengers: Sequence[int]
    status: str
    step: int
    plan: Plan
    started_at: datetime
    step_started_at: datetime
    ended_at: datetime | None
    started_by: str
    reason: str

    @property
    def steps(self) -> Sequence[float]:
        """The percents of the plan."""
        return self.plan.steps

    @property
    def challenger(self) -> int:
        """The first challenger."""
        return self.challengers[0]

    @property
    def percent(self) -> float:
        """The challengers' share of the traffic at the current step."""
        return self.plan.steps[self.step]

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided."""
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """A step: the route revision it is served by, and what was fixed before its evidence came in."""

    step: int
    revision: int
    fixed: Mapping[str, object]
    started_at: datetime


@dataclass(frozen=True, slots=True)
class RolloutDecision:
    """One look at the evidence that changed something."""

    rollout_id: str
    number: int
    percent: float
    decision: Decision
    evidence: Mapping[str, object]
    decided_at: datetime


def latest_look(tx: Transaction, rollout_id: str) -> tuple[Mapping[str, object], datetime] | None:
    """What the newest look at a rollout saw, and when."""
    row = tx.execute(select(rollout_looks).where(rollout_looks.c.rollout_id == rollout_id)).first()
    return None if row is None else (from_json(row.evidence), from_millis(row.looked_at))


def seen_last(tx: Transaction, rollout: Rollout) -> tuple[Mapping[str, object], datetime | None] | None:
    """What is known of a rollout, and as of when: what the newest look saw, and over that what an ended one ended by.

    The look that decides is kept with its decision. One by hand rests on a reason alone, beside what was seen before;
    where nobody had looked before there is no instant of it.
    One that is paused waits for that, whatever was seen; a step that has just begun waits for its first look.
    """
    look, decisions = latest_look(tx, rollout.rollout_id), list_decisions(tx, rollout.rollout_id)
    if not decisions:
        return look
    last = decisions[-1]
    if rollout.status == RUNNING:
        is_new = last.decision is Decision.ADVANCE and (look is None or look[1] < last.decided_at)
        began = f"step {rollout.step + 1} has begun: nobody has looked at it yet"
        return ({"reason": began}, last.decided_at) if is_new else look
    if rollout.status == PAUSED:
        seen, at = look or ({}, None)
        why = last.evidence.get("reason")
        return {**seen, "reason": f"it is paused: {why}" if why else "it is paused"}, at
    by_hand = not set(last.evidence) - {"reason", "winner"}
    looked_at = None if look is None else look[1]
    seen = {} if look is None else {name: value for name, value in look[0].items() if name != "waits_for"}
    return {**seen, **last.evidence}, looked_at if by_hand else last.decided_at


def percent_now(tx: Transaction, rollout: Rollout) -> float:
    """The challengers' share of the traffic: that of the step, or what a bandit made of it since, to a tenth."""
    found = latest_shares(tx, rollout.rollout_id)
    return rollout.percent if found is None else round(100 * (1 - found[0]["champion"]), 1)


def latest_shares(tx: Transaction, rollout_id: str) -> tuple[Mapping[str, float], str] | None:
    """How a bandit divides the traffic now: shares by variant, and the parameters of a contextual one."""
    query = select(bandit_shares).where(bandit_shares.c.rollout_id == rollout_id)
    row = tx.execute(query.order_by(bandit_shares.c.number.desc()).limit(1)).first()
    return None if row is None else (json.loads(row.shares), row.parameters)


def share_history(tx: Transaction, rollout_id: str) -> list[tuple[datetime, Mapping[str, float]]]:
    """Every change of a bandit's shares, oldest first."""
    query = select(bandit_shares).where(bandit_shares.c.rollout_id == rollout_id).order_by(bandit_shares.c.number)
    return [(from_millis(row.decided_at), json.loads(row.shares)) for row in tx.execute(query)]


def get_rollout(tx: Transaction, rollout_id: str) -> Rollout:
    """The rollout of that id, or of an id that begins so. Raises NotFound, or Conflict when several do."""
    query = select(rollouts).where(rollouts.c.rollout_id.startswith(rollout_id, autoescape=True)).limit(2)
    rows = tx.execute(query).all()
    if len(rows) > 1:
        raise Conflict(f"several rollouts begin with {rollout_id!r}", remedy="Give more of the id.")
    if not rows:
        raise NotFound(f"there is no rollout {rollout_id!r}", remedy="`noria rollout list` shows all.")
    return _rollout(rows[0])


def open_rollout(tx: Transaction, deployment: str) -> Rollout | None:
    """The rollout under way in a deployment, running or paused, or None."""
    query = select(rollouts).where(rollouts.c.deployment == deployment, rollouts.c.status.in_(OPEN))
    row = tx.execute(query).first()
    return None if row is None else _rollout(row)


def list_rollouts(tx: Transaction, deployment: str | None = None) -> list[Rollout]:
    """All rollouts, of one deployment or of all, oldest first."""
    query = select(rollouts).order_by(rollouts.c.started_at, rollouts.c.rollout_id)
    if deployment is not None:
        query = query.where(rollouts.c.deployment == deployment)
    return [_rollout(row) for row in tx.execute(query)]


def list_steps(tx: Transaction, rollout_id: str) -> list[RolloutStep]:
    """The steps that a rollout has begun, in order."""
    query = select(rollout_steps).where(rollout_steps.c.rollout_id == rollout_id).order_by(rollout_steps.c.step)
    return [
        RolloutStep(row.step, row.revision, from_json(row.fixed), from_millis(row.started_at))
        for row in tx.execute(query)
    ]


def list_decisions(tx: Transaction, rollout_id: str) -> list[RolloutDecision]:
    """The decisions of a rollout in order."""
    table = rollout_decisions
    query = select(table).where(table.c.rollout_id == rollout_id).order_by(table.c.number)
    return [
        RolloutDecision(
            row.rollout_id,
            row.number,
            row.percent,
            Decision(row.decision),
            from_json(row.evidence),
            from_millis(row.decided_at),
        )
        for row in tx.execute(query)
    ]


def list_deployments(tx: Transaction) -> list[str]:
    """The names of all deployments that ever had a route."""
    names = select(route_tables.c.deployment).distinct().order_by(route_tables.c.deployment)
    return list(tx.execute(names).scalars())


def serving_versions(tx: Transaction) -> set[tuple[str, int]]:
    """(model, version) of all that take traffic now, or take part in a rollout under way."""
    found: set[tuple[str, int]] = set()
    for deployment in set(list_deployments(tx)) - _withdrawn(tx):
        routes = current_routes(tx, deployment)
        found |= {(variant.model, variant.version) for variant in routes.variants} if routes is not None else set()
        if (rollout := open_rollout(tx, deployment)) is not None:
            found |= {(rollout.model, version) for version in (rollout.champion, *rollout.challengers)}
    return found


def _withdrawn(tx: Transaction) -> set[str]:
    query = select(deployments.c.deployment).where(deployments.c.withdrawn_at.is_not(None))
    return set(tx.execute(query).scalars())


def _rollout(row: Row[tuple[object, ...]]) -> Rollout:
    challengers = json.loads(row.challengers) if row.challengers else [row.challenger]
    plan = read_plan(from_json(row.plan)) if row.plan else Plan(Strategy.CANARY, tuple(json.loads(row.steps)))
    return Rollout(
        row.rollout_id,
        row.deployment,
        row.model,
        row.champion,
        tuple(challengers),
        row.status,
        row.step,
        plan,
        from_millis(row.started_at),
        from_millis(row.step_started_at),
        None if row.ended_at is None else from_millis(row.ended_at),
        row.started_by,
        row.reason,
    )
