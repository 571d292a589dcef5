"""Rollouts under way and done: what they went through and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Row, func, insert, select, update

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, NotFound
from noria.ids import derived_id
from noria.rollout.plan import Plan, Strategy, check_plan, read_plan
from noria.rollout.route_records import current_routes
from noria.store.database import Transaction, conflict_insert, from_json, to_json
from noria.store.tables import bandit_shares, rollout_decisions, rollout_looks, rollout_steps, rollouts, route_tables

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


def start_rollout(
    tx: Transaction,
    deployment: str,
    model: str,
    *,
    champion: int,
    challengers: Sequence[int],
    plan: Plan,
    at: datetime,
    actor: str,
    reason: str = "",
) -> Rollout:
    """Record a new rollout at its first step. Raises Conflict while another one is open, InvalidInput for the plan."""
    check_plan(plan, len(challengers))
    if (other := open_rollout(tx, deployment)) is not None:
        raise Conflict(
            f"deployment {deployment!r} has a rollout under way: {other.rollout_id[:8]}, {other.plan.strategy} of "
            f"version {other.challenger}",
            remedy="Promote or abort it first: `noria rollout promote` or `noria rollout abort`.",
        )
    if champion in challengers or len(set(challengers)) != len(challengers):
        raise Conflict(
            f"versions {', '.join(map(str, [champion, *challengers]))} do not differ",
            remedy="Name challengers other than the version that serves, each once.",
        )
    rollout_id = derived_id(deployment, model, *map(str, challengers), str(to_millis(at)))
    tx.execute(
        insert(rollouts).values(
            rollout_id=rollout_id,
            deployment=deployment,
            model=model,
            champion=champion,
            challenger=challengers[0],
            challengers=json.dumps(list(challengers)),
            status=RUNNING,
            step=0,
            steps=json.dumps(list(plan.steps)),
            strategy=plan.strategy.value,
            plan=to_json(plan.as_document()),
            started_at=to_millis(at),
            step_started_at=to_millis(at),
            started_by=actor,
            reason=reason,
        )
    )
    detail: dict[str, object] = {
        "champion": champion,
        "challengers": list(challengers),
        "strategy": plan.strategy.value,
        "steps": list(plan.steps),
        "reason": reason,
    }
    _audit(tx, "start", deployment, detail, [(rollouts, (rollout_id,))], at=at, actor=actor)
    return get_rollout(tx, rollout_id)


def begin_step(
    tx: Transaction, rollout: Rollout, revision: int, fixed: Mapping[str, object], *, at: datetime, actor: str
) -> None:
    """Record by which routes the current step is served; asked again for the same step, nothing changes."""
    statement = conflict_insert(tx.dialect.name, rollout_steps).values(
        rollout_id=rollout.rollout_id,
        step=rollout.step,
        revision=revision,
        fixed=to_json(dict(fixed)),
        started_at=to_millis(at),
    )
    if not tx.execute(statement.on_conflict_do_nothing()).rowcount:
        return
    detail: dict[str, object] = {"step": rollout.step, "percent": rollout.percent, "revision": revision}
    changed = [(rollout_steps, (rollout.rollout_id, rollout.step))]
    _audit(tx, "step", rollout.deployment, detail, changed, at=at, actor=actor)


def fix_step(tx: Transaction, rollout: Rollout, fixed: Mapping[str, object], *, at: datetime, actor: str) -> None:
    """Fix what could not be known when the current step began."""
    table = rollout_steps
    mine = (table.c.rollout_id == rollout.rollout_id) & (table.c.step == rollout.step)
    tx.execute(update(table).where(mine).values(fixed=to_json(dict(fixed))))
    detail: dict[str, object] = {"step": rollout.step, "fixed": dict(fixed)}
    changed = [(table, (rollout.rollout_id, rollout.step))]
    _audit(tx, "fix", rollout.deployment, detail, changed, at=at, actor=actor)


def record_decision(
    tx: Transaction, rollout: Rollout, decision: Decision, evidence: Mapping[str, object], *, at: datetime, actor: str
) -> Rollout:
    """Record a decision and move the rollout along: to its next step, to its end, to a halt, or on again."""
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
    changed = [(rollouts, (rollout.rollout_id,)), (rollout_decisions, (rollout.rollout_id, number + 1))]
    _audit(tx, decision.value, rollout.deployment, detail, changed, at=at, actor=actor)
    return get_rollout(tx, rollout.rollout_id)


def record_look(tx: Transaction, rollout: Rollout, evidence: Mapping[str, object], *, at: datetime) -> None:
    """Keep what the newest look saw, in place of the one before."""
    values = {"evidence": to_json(dict(evidence)), "looked_at": to_millis(at)}
    statement = conflict_insert(tx.dialect.name, rollout_looks).values(rollout_id=rollout.rollout_id, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=["rollout_id"], set_=values))


def latest_look(tx: Transaction, rollout_id: str) -> tuple[Mapping[str, object], datetime] | None:
    """What the newest look at a rollout saw, and when."""
    row = tx.execute(select(rollout_looks).where(rollout_looks.c.rollout_id == rollout_id)).first()
    return None if row is None else (from_json(row.evidence), from_millis(row.looked_at))


def record_shares(
    tx: Transaction, rollout: Rollout, shares: Mapping[str, float], parameters: str, evidence: Mapping[str, object],
    *, at: datetime, actor: str,
) -> None:  # fmt: skip
    """Keep how a bandit divides the traffic from now on: within its plan, so no decision of its own."""
    number = tx.execute(
        select(func.count()).select_from(bandit_shares).where(bandit_shares.c.rollout_id == rollout.rollout_id)
    ).scalar_one()
    tx.execute(
        insert(bandit_shares).values(
            rollout_id=rollout.rollout_id,
            number=number + 1,
            shares=to_json(dict(shares)),
            parameters=parameters,
            evidence=to_json(dict(evidence)),
            decided_at=to_millis(at),
        )
    )
    detail = {"rollout_id": rollout.rollout_id, "number": number + 1, "shares": dict(shares)}
    _audit(tx, "share", rollout.deployment, detail, [], at=at, actor=actor)


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
    for deployment in list_deployments(tx):
        routes = current_routes(tx, deployment)
        found |= {(variant.model, variant.version) for variant in routes.variants} if routes is not None else set()
        if (rollout := open_rollout(tx, deployment)) is not None:
            found |= {(rollout.model, version) for version in (rollout.champion, *rollout.challengers)}
    return found


def _moved(rollout: Rollout, decision: Decision, at: datetime) -> dict[str, object]:
    now = to_millis(at)
    last = rollout.step + 1 == len(rollout.steps)
    if decision is Decision.ROLL_BACK:
        return {"status": ROLLED_BACK, "ended_at": now}
    if decision is Decision.PROMOTE or (decision is Decision.ADVANCE and last):
        return {"status": PROMOTED, "ended_at": now}
    if decision is Decision.ADVANCE:
        return {"step": rollout.step + 1, "step_started_at": now}
    return {"status": PAUSED if decision is Decision.PAUSE else RUNNING}


def _audit(
    tx: Transaction,
    what: str,
    deployment: str,
    detail: Mapping[str, object],
    changed: Sequence[audit.RowKey],
    *,
    at: datetime,
    actor: str,
) -> None:
    audit.append(
        tx, at=at, actor=actor, action=f"rollout.{what}", subject=f"deployment:{deployment}", detail=detail,
        changed=changed,
    )  # fmt: skip


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
