"""Stage transitions and approvals: policy, change and audit entry in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy import func, insert, select, update

from noria import audit, events
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, InvalidInput, PolicyRefused
from noria.registry.approvals import approvals, spend_approvals
from noria.registry.entities import ModelVersion, Stage, Transition
from noria.registry.parity import FEATURE_PARITY, latest_parity
from noria.registry.policy import Policies, Policy
from noria.registry.versions import get_version, list_versions, version_in_stage
from noria.store import tables
from noria.store.database import Database, Transaction
from noria.tracking import runs

Key = TypeVar("Key")
_BACK = "rolled back from version"
"""How the reason of a move begins that took a version back into Production."""


class MoveRefused(PolicyRefused):
    """A policy refuses to let ``version`` into ``stage``."""

    def __init__(self, version: ModelVersion, stage: Stage, unmet: Sequence[str]) -> None:
        said = f"policy refuses {version.label} {version.stage} → {stage}"
        super().__init__(said, details=unmet, remedy=_remedy(version))
        self.version, self.stage = version, stage


def parse_stage(text: str) -> Stage:
    """The stage people name in any case. Raises InvalidInput."""
    for stage in Stage:
        if stage.value.lower() == text.lower():
            return stage
    raise InvalidInput(f"{text!r} is not a stage", remedy=f"Use one of {', '.join(Stage)}.")


def transition(
    tx: Transaction,
    model: str,
    version: int,
    stage: Stage,
    *,
    policies: Policies,
    at: datetime,
    actor: str,
    reason: str = "",
    archive_existing: bool = False,
) -> ModelVersion:
    """Move a version to ``stage`` when the policy allows; a version already there stays as it is.

    Entering Production archives the version that was there, or as many as the policy's ``production_versions`` leave
    no room for; ``archive_existing`` archives all that were in the stage. Raises MoveRefused with every unmet
    condition, before anything is written.
    """
    found = get_version(tx, model, version)
    if found.stage is stage:
        return found
    policy, production = policies.of(model), version_in_stage(tx, model, Stage.PRODUCTION)
    run = None if found.run_id is None else runs.state(tx, found.run_id)
    unmet = policy.unmet(
        _measured(tx, found), stage, approvals(tx, model, version), reason, production=production, run=run
    )
    if unmet:
        raise MoveRefused(found, stage, unmet)
    for other in _replaced(tx, model, stage, policy, archive_existing=archive_existing):
        _move(tx, other, Stage.ARCHIVED, at, actor, f"replaced by version {version}")
    _move(tx, found, stage, at, actor, reason, policy.passed_over(found, stage, production))
    return get_version(tx, model, version)


def _replaced(
    tx: Transaction, model: str, stage: Stage, policy: Policy, *, archive_existing: bool
) -> list[ModelVersion]:
    """The versions that leave the stage because another one enters, the one that has been there longest first."""
    entered = {move.version: place for place, move in enumerate(history(tx, model)) if move.to_stage is stage}
    there = [version for version in list_versions(tx, model) if version.stage is stage]
    there.sort(key=lambda version: entered.get(version.version, 0))
    if archive_existing and stage in (Stage.STAGING, Stage.PRODUCTION):
        return there
    room = policy.production_versions
    return there[: max(len(there) - room + 1, 0)] if stage is Stage.PRODUCTION and room else []


def _remedy(version: ModelVersion) -> str:
    """Nothing can be logged for a version without a run, such as a chain: there is another way then."""
    remedy = "Meet every condition listed, then ask again."
    if version.run_id is not None:
        return remedy
    return (
        f"{remedy} It has no run that metrics were logged to: say what it is to meet instead under "
        f'[policies."{version.model}".stages.STAGE], above other patterns in noria.toml, or deploy it beside, with '
        "another --name than its model's, where it keeps its stage."
    )


def _measured(tx: Transaction, version: ModelVersion) -> ModelVersion:
    """The version with its feature parity as it was measured, whatever its run may have logged under that name."""
    parity = latest_parity(tx, version.model, version.version)
    metrics = {name: value for name, value in version.metrics.items() if name != FEATURE_PARITY}
    return replace(version, metrics=metrics if parity is None else metrics | {FEATURE_PARITY: parity})


def roll_back(tx: Transaction, model: str, *, at: datetime, actor: str, reason: str) -> ModelVersion:
    """Put the version before the one in Production back, in one step, and archive the one there.

    No policy is asked: the version was let into Production before. Versions that were themselves rolled back are
    passed over. Raises Conflict when there is nothing to go back to.
    """
    current = version_in_stage(tx, model, Stage.PRODUCTION)
    target = rollback_target(tx, model)
    if current is None or target is None:
        raise Conflict(
            f"model {model!r} has no earlier version in Production to go back to",
            remedy=f"`noria models history {model}` shows which versions were there.",
        )
    _move(tx, current, Stage.ARCHIVED, at, actor, f"rolled back to version {target}: {reason}")
    previous = get_version(tx, model, target)
    _move(tx, previous, Stage.PRODUCTION, at, actor, f"{_BACK} {current.version}: {reason}")
    return get_version(tx, model, previous.version)


def rollback_target(tx: Transaction, model: str) -> int | None:
    """The version a rollback would put back, or None.

    That is the last one in Production before the one there; those that were rolled back or deleted are passed over. An
    older version that was put forward again is no rollback: what it replaced is the version before it.
    """
    moves = [move for move in history(tx, model) if move.to_stage is Stage.PRODUCTION]
    line = in_line((move.version, move.reason.startswith(_BACK)) for move in moves)
    there = {version.version for version in list_versions(tx, model)}
    current = version_in_stage(tx, model, Stage.PRODUCTION)
    earlier = [number for number in line if number in there and (current is None or number != current.version)]
    return earlier[-1] if earlier else None


def in_line(served: Iterable[tuple[Key, bool]]) -> list[Key]:
    """What served, one after the other; one that was gone back to (true) takes away all that came after it."""
    line: list[Key] = []
    for one, is_back in served:
        if is_back and one in line:
            while line[-1] != one:
                line.pop()
        elif not line or line[-1] != one:
            line.append(one)
    return line


def history(tx: Transaction, model: str, version: int | None = None) -> list[Transition]:
    """The stage moves of a model or of one version, oldest first."""
    table = tables.transitions
    query = select(table).where(table.c.model == model).order_by(table.c.id)
    if version is not None:
        query = query.where(table.c.version == version)
    return [
        Transition(
            row.model,
            row.version,
            Stage(row.from_stage),
            Stage(row.to_stage),
            row.actor,
            row.reason,
            from_millis(row.moved_at),
        )
        for row in tx.execute(query)
    ]


def record_move(
    tx: Transaction, version: ModelVersion, before: Stage, after: Stage, *, at: datetime, actor: str, reason: str
) -> audit.RowKey:
    """Put a move into the history of the model; the row, for the audit entry of what caused it."""
    made = tx.execute(
        insert(tables.transitions).values(
            model=version.model,
            version=version.version,
            from_stage=before.value,
            to_stage=after.value,
            actor=actor,
            reason=reason,
            moved_at=to_millis(at),
        )
    )
    return tables.transitions, tuple(made.inserted_primary_key or ())


def _move(
    tx: Transaction,
    version: ModelVersion,
    stage: Stage,
    at: datetime,
    actor: str,
    reason: str,
    passed_over: Sequence[str] = (),
) -> None:
    table = tables.model_versions
    tx.execute(
        update(table)
        .where(table.c.model == version.model, table.c.version == version.version)
        .values(stage=stage.value, updated_at=to_millis(at))
    )
    changed = [
        (table, (version.model, version.version)),
        record_move(tx, version, version.stage, stage, at=at, actor=actor, reason=reason),
        *spend_approvals(tx, version, stage, at),
    ]
    move = {"from_stage": version.stage.value, "to_stage": stage.value, "reason": reason}
    detail = {**move, "passed_over": list(passed_over)} if passed_over else move
    subject = f"version:{version.label}"
    audit.append(tx, at=at, actor=actor, action="version.transition", subject=subject, detail=detail, changed=changed)
    events.emit(tx, "model_version.stage_transitioned", {**version.named, "actor": actor, **move}, at=at)


def _last_move(tx: Transaction, model: str) -> int | None:
    table = tables.transitions.c
    return tx.execute(select(func.max(table.id)).where(table.model == model)).scalar()


def request_transition(
    database: Database,
    model: str,
    version: int,
    stage: Stage,
    *,
    policies: Policies,
    at: datetime,
    actor: str,
    reason: str = "",
    archive_existing: bool = False,
    along: Callable[[Transaction, ModelVersion], None] = lambda _tx, _moved: None,
) -> ModelVersion:
    """``transition`` in a transaction of its own, with what ``along`` writes; a refusal is audited too, then raised.

    Of moves of one model that are asked for at the same time one is made: the others were asked for in view of what it
    has changed. Raises Conflict for those.
    """
    with database.read() as tx:
        seen = _last_move(tx, model)
    with gated(database, at=at, actor=actor, reason=reason) as tx:
        if _last_move(tx, model) != seen:
            raise Conflict(f"another move of model {model!r} was made at the same time", remedy="Look again and retry.")
        moved = transition(
            tx,
            model,
            version,
            stage,
            policies=policies,
            at=at,
            actor=actor,
            reason=reason,
            archive_existing=archive_existing,
        )
        along(tx, moved)
        return moved


@contextmanager
def gated(database: Database, *, at: datetime, actor: str, reason: str) -> Iterator[Transaction]:
    """A transaction of moves and of all that goes with them: one that a policy refuses undoes it, and is audited."""
    try:
        with database.write() as tx:
            yield tx
    except MoveRefused as refusal:
        with database.write() as tx:
            note_refusal(tx, refusal, at=at, actor=actor, reason=reason)
        raise


def note_refusal(tx: Transaction, refusal: MoveRefused, *, at: datetime, actor: str, reason: str) -> None:
    """The audit entry, and the event, of a move that a policy refused."""
    version = refusal.version
    detail: dict[str, object] = {"to_stage": refusal.stage.value, "unmet": list(refusal.details), "reason": reason}
    subject = f"version:{version.label}"
    audit.append(tx, at=at, actor=actor, action="version.refuse", subject=subject, detail=detail)
    data = {"name": version.model, "version": str(version.version), "actor": actor, **detail}
    events.emit(tx, "model_version.transition_refused", data, at=at)
