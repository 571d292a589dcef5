"""Rollouts under way and done: what they went through and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, func, insert, select, update

from noria import audit
from noria.clock import from_millis, to_millis
from noria.ids import derived_id
from noria.rollout.canary import Decision
from noria.rollout.routes import current_routes
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import rollout_decisions, rollouts, route_tables

RUNNING, PROMOTED, ROLLED_BACK = "running", "promoted", "rolled_back"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A challenger on its way through the canary's steps; ``step`` counts from 0."""

    rollout_id: str
    deployment: str
    model: str
    champion: int
    challenger: int
    status: str
    step: int
    steps: Sequence[float]
    started_at: datetime
    step_started_at: datetime
    ended_at: datetime | None

    @property
    def percent(self) -> float:
        """The challenger's share of the traffic at the current step."""
        return self.steps[self.step]


@dataclass(frozen=True, slots=True)
class RolloutDecision:
    """One look at the evidence that changed something."""

    rollout_id: str
    number: int
    percent: float
    decision: Decision
    evidence: Mapping[str, object]
    decided_at: datetime


def start_rollout(
    tx: Transaction,
    deployment: str,
    model: str,
    *,
    champion: int,
    challenger: int,
    steps: Sequence[float],
    at: datetime,
    actor: str,
) -> Rollout:
    """Record a new rollout at its first step."""
    rollout_id = derived_id(deployment, model, str(challenger))
    tx.execute(
        insert(rollouts).values(
            rollout_id=rollout_id,
            deployment=deployment,
            model=model,
            champion=champion,
            challenger=challenger,
            status=RUNNING,
            step=0,
            steps=json.dumps(list(steps)),
            started_at=to_millis(at),
            step_started_at=to_millis(at),
        )
    )
    detail: dict[str, object] = {"champion": champion, "challenger": challenger, "steps": list(steps)}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="rollout.start",
        subject=f"deployment:{deployment}",
        detail=detail,
        changed=[(rollouts, (rollout_id,))],
    )
    return get_rollout(tx, rollout_id)


def record_decision(
    tx: Transaction, rollout: Rollout, decision: Decision, evidence: Mapping[str, object], *, at: datetime, actor: str
) -> Rollout:
    """Record a decision and move the rollout along: to its next step, to promoted, or to rolled back."""
    number = tx.execute(
        select(func.count()).select_from(rollout_decisions).where(rollout_decisions.c.rollout_id == rollout.rollout_id)
    ).scalar_one()
    tx.execute(
        insert(rollout_decisions).values(
            rollout_id=rollout.rollout_id,
            number=number + 1,
            percent=rollout.percent,
            decision=decision.value,
            evidence=to_json(dict(evidence)),
            decided_at=to_millis(at),
        )
    )
    tx.execute(
        update(rollouts).where(rollouts.c.rollout_id == rollout.rollout_id).values(_moved(rollout, decision, at))
    )
    detail = {"challenger": rollout.challenger, "percent": rollout.percent, "evidence": dict(evidence)}
    action = f"rollout.{decision.value}"
    subject = f"deployment:{rollout.deployment}"
    audit.append(
        tx,
        at=at,
        actor=actor,
        action=action,
        subject=subject,
        detail=detail,
        changed=[(rollouts, (rollout.rollout_id,)), (rollout_decisions, (rollout.rollout_id, number + 1))],
    )
    return get_rollout(tx, rollout.rollout_id)


def get_rollout(tx: Transaction, rollout_id: str) -> Rollout:
    """The rollout of that id, which must exist."""
    return _rollout(tx.execute(select(rollouts).where(rollouts.c.rollout_id == rollout_id)).one())


def running_rollout(tx: Transaction, deployment: str) -> Rollout | None:
    """The rollout under way in a deployment, or None."""
    query = select(rollouts).where(rollouts.c.deployment == deployment, rollouts.c.status == RUNNING)
    row = tx.execute(query).first()
    return None if row is None else _rollout(row)


def list_rollouts(tx: Transaction, deployment: str | None = None) -> list[Rollout]:
    """All rollouts, of one deployment or of all, oldest first."""
    query = select(rollouts).order_by(rollouts.c.started_at)
    if deployment is not None:
        query = query.where(rollouts.c.deployment == deployment)
    return [_rollout(row) for row in tx.execute(query)]


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
    for deployment in list_deployments(tx):
        routes = current_routes(tx, deployment)
        found |= {(variant.model, variant.version) for variant in routes.variants} if routes is not None else set()
        if (rollout := running_rollout(tx, deployment)) is not None:
            found |= {(rollout.model, rollout.champion), (rollout.model, rollout.challenger)}
    return found


def _moved(rollout: Rollout, decision: Decision, at: datetime) -> dict[str, object]:
    if decision is Decision.ROLL_BACK:
        return {"status": ROLLED_BACK, "ended_at": to_millis(at)}
    if rollout.step + 1 == len(rollout.steps):
        return {"status": PROMOTED, "ended_at": to_millis(at)}
    return {"step": rollout.step + 1, "step_started_at": to_millis(at)}


def _rollout(row: Row[tuple[object, ...]]) -> Rollout:
    return Rollout(
        row.rollout_id,
        row.deployment,
        row.model,
        row.champion,
        row.challenger,
        row.status,
        row.step,
        tuple(json.loads(row.steps)),
        from_millis(row.started_at),
        from_millis(row.step_started_at),
        None if row.ended_at is None else from_millis(row.ended_at),
    )
