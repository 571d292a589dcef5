"""What is written of a rollout: each write with its audit entry, and none about a state that is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Table, func, insert, select, update

from noria.clock import to_millis
from noria.errors import Conflict, InvalidInput
from noria.ids import derived_id
from noria.rollout.plan import Plan, check_plan
from noria.rollout.records import (
    PAUSED,
    PROMOTED,
    ROLLED_BACK,
    RUNNING,
    Decision,
    Rollout,
    get_rollout,
    latest_shares,
    open_rollout,
    percent_now,
)
from noria.rollout.route_records import note
from noria.store.database import Transaction, conflict_insert, to_json
from noria.store.tables import bandit_shares, rollout_decisions, rollout_looks, rollout_steps, rollouts

_ROUNDING = 1e-4
"""A hundredth of a percent: fewer requests than that move to another arm for no reason one could name."""


class Overtaken(Conflict):
    """A rollout was ended, paused or moved along while somebody still made up their mind about it."""


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
    check_versions(champion, challengers)
    check_none_open(tx, deployment)
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
    note(tx, deployment, "rollout.start", detail, [(rollouts, (rollout_id,))], at=at, actor=actor)
    return get_rollout(tx, rollout_id)


def check_none_open(tx: Transaction, deployment: str) -> None:
    """Raises Conflict while a rollout of the deployment is under way."""
    if (other := open_rollout(tx, deployment)) is not None:
        raise Conflict(
            f"deployment {deployment!r} has a rollout under way: {other.rollout_id[:8]}, {other.plan.strategy} of "
            f"version {other.challenger}",
            remedy="Promote or abort it first: `noria rollout promote` or `noria rollout abort`.",
        )


def check_versions(champion: int, challengers: Sequence[int]) -> None:
    """Raises Conflict unless all versions of a rollout differ."""
    if champion in challengers:
        raise Conflict(
            f"version {champion} is the champion: it serves already",
            remedy="Name another version as the challenger; `noria deploy list` shows what serves.",
        )
    if twice := [one for one in dict.fromkeys(challengers) if challengers.count(one) > 1]:
        raise Conflict(f"version {twice[0]} is named more than once", remedy="Name each challenger once.")


def check_unchanged(tx: Transaction, seen: Rollout) -> None:
    """Raises Overtaken unless the rollout still is where it was seen; in a ``write`` that holds until the commit."""
    now = get_rollout(tx, seen.rollout_id)
    if (now.status, now.step) != (seen.status, seen.step):
        raise Overtaken(
            f"rollout {seen.rollout_id[:8]} was {seen.status} at step {seen.step + 1} and meanwhile is {now.status} at "
            f"step {now.step + 1}",
            remedy="See how it stands with `noria rollout explain`, then ask again.",
        )


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
    note(tx, rollout.deployment, "rollout.step", detail, changed, at=at, actor=actor)


def fix_step(tx: Transaction, rollout: Rollout, fixed: Mapping[str, object], *, at: datetime, actor: str) -> None:
    """Fix what could not be known when the current step began. Raises Overtaken."""
    check_unchanged(tx, rollout)
    table = rollout_steps
    mine = (table.c.rollout_id == rollout.rollout_id) & (table.c.step == rollout.step)
    tx.execute(update(table).where(mine).values(fixed=to_json(dict(fixed))))
    detail: dict[str, object] = {"step": rollout.step, "fixed": dict(fixed)}
    changed = [(table, (rollout.rollout_id, rollout.step))]
    note(tx, rollout.deployment, "rollout.fix", detail, changed, at=at, actor=actor)


def record_decision(
    tx: Transaction, rollout: Rollout, decision: Decision, evidence: Mapping[str, object], *, at: datetime, actor: str
) -> Rollout:
    """Record a decision and move the rollout along: to its next step, to its end, to a halt, or on again.

    Raises Overtaken when it is no longer where ``rollout`` says: what was decided was decided about another state.
    """
    check_unchanged(tx, rollout)
    number, percent = _next_number(tx, rollout_decisions, rollout), percent_now(tx, rollout)
    tx.execute(
        insert(rollout_decisions).values(
            rollout_id=rollout.rollout_id,
            number=number,
            percent=percent,
            decision=decision.value,
            evidence=to_json(dict(evidence)),
            decided_at=to_millis(at),
        )
    )
    tx.execute(
        update(rollouts).where(rollouts.c.rollout_id == rollout.rollout_id).values(_moved(rollout, decision, at))
    )
    detail = {"challenger": rollout.challenger, "percent": percent, "evidence": dict(evidence)}
    changed = [(rollouts, (rollout.rollout_id,)), (rollout_decisions, (rollout.rollout_id, number))]
    note(tx, rollout.deployment, f"rollout.{decision.value}", detail, changed, at=at, actor=actor)
    return get_rollout(tx, rollout.rollout_id)


def record_look(tx: Transaction, rollout: Rollout, evidence: Mapping[str, object], *, at: datetime) -> None:
    """Keep what the newest look saw, in place of the one before. Raises Overtaken."""
    check_unchanged(tx, rollout)
    values = {"evidence": to_json(dict(evidence)), "looked_at": to_millis(at)}
    statement = conflict_insert(tx.dialect.name, rollout_looks).values(rollout_id=rollout.rollout_id, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=["rollout_id"], set_=values))


def record_shares(
    tx: Transaction, rollout: Rollout, shares: Mapping[str, float], parameters: str, evidence: Mapping[str, object],
    *, at: datetime, actor: str,
) -> None:  # fmt: skip
    """Keep how a bandit divides the traffic from now on: within its plan, so no decision of its own.

    Shares that differ from the newest ones by rounding alone, with the same parameters, change nothing. Raises
    Overtaken, and InvalidInput for what are no shares: whatever the rewards were, no gateway is told those.
    """
    check_unchanged(tx, rollout)
    _check_shares(rollout, shares)
    if _are_same(latest_shares(tx, rollout.rollout_id), shares, parameters):
        return
    number = _next_number(tx, bandit_shares, rollout)
    tx.execute(
        insert(bandit_shares).values(
            rollout_id=rollout.rollout_id,
            number=number,
            shares=to_json(dict(shares)),
            parameters=parameters,
            evidence=to_json(dict(evidence)),
            decided_at=to_millis(at),
        )
    )
    detail = {"rollout_id": rollout.rollout_id, "number": number, "shares": dict(shares)}
    changed = [(bandit_shares, (rollout.rollout_id, number))]
    note(tx, rollout.deployment, "rollout.share", detail, changed, at=at, actor=actor)


def _next_number(tx: Transaction, table: Table, rollout: Rollout) -> int:
    """That of the next of a rollout's rows in ``table``, which are numbered from 1."""
    mine = select(func.count()).select_from(table).where(table.c.rollout_id == rollout.rollout_id)
    return tx.execute(mine).scalar_one() + 1


def _check_shares(rollout: Rollout, shares: Mapping[str, float]) -> None:
    if not (abs(sum(shares.values()) - 1) < _ROUNDING and all(share >= 0 for share in shares.values())):
        raise InvalidInput(
            f"{', '.join(f'{name} {share:g}' for name, share in shares.items())} are no shares of the traffic of "
            f"rollout {rollout.rollout_id[:8]}: they are to be 0 or more and sum to 1",
            remedy="See whether its rewards are of a sensible size; the shares of before stay meanwhile.",
        )


def _are_same(before: tuple[Mapping[str, float], str] | None, shares: Mapping[str, float], parameters: str) -> bool:
    if before is None or before[0].keys() != shares.keys() or before[1] != parameters:
        return False
    return all(abs(before[0][name] - share) < _ROUNDING for name, share in shares.items())


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
