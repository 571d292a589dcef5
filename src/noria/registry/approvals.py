"""Approvals: who consents that a version enters a stage, once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, update

from noria import audit, events
from noria.clock import from_millis, to_millis
from noria.registry.entities import Approval, ModelVersion, Stage
from noria.registry.versions import get_version
from noria.store.database import Transaction
from noria.store.tables import approvals as table


def approve(
    tx: Transaction,
    model: str,
    version: int,
    stage: Stage,
    *,
    at: datetime,
    actor: str,
    reason: str,
    roles: Sequence[str] = (),
) -> None:
    """Record that ``actor``, in its ``roles``, consents to the version entering ``stage``, once.

    To consent again changes nothing until the version has entered; from then on it counts for another time.
    """
    found = get_version(tx, model, version)
    mine = [a for a in approvals(tx, model, version) if a.actor == actor and a.stage is stage]
    if any(approval.spent_at is None for approval in mine):
        return
    row = {"model": model, "version": version, "stage": stage.value, "actor": actor}
    same = (table.c[name] == value for name, value in row.items())
    tx.execute(delete(table).where(*same))  # the spent one stays in the audit trail
    given = {"reason": reason, "approved_at": to_millis(at), "roles": ",".join(roles)}
    tx.execute(insert(table).values(**row, **given))
    detail = {"stage": stage.value, "reason": reason, "roles": list(roles)}
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.approve",
        subject=f"version:{found.label}",
        detail=detail,
        changed=[(table, (model, version, stage.value, actor))],
    )
    events.emit(tx, "model_version.approved", {**found.named, "actor": actor, **detail}, at=at)


def approvals(tx: Transaction, model: str, version: int) -> list[Approval]:
    """The approvals of a version, oldest first."""
    query = select(table).where(table.c.model == model, table.c.version == version)
    return [
        Approval(
            row.actor,
            Stage(row.stage),
            row.reason,
            from_millis(row.approved_at),
            tuple(row.roles.split(",")),
            None if row.spent_at is None else from_millis(row.spent_at),
        )
        for row in tx.execute(query.order_by(table.c.approved_at))
    ]


def spend_approvals(tx: Transaction, version: ModelVersion, stage: Stage, at: datetime) -> list[audit.RowKey]:
    """Mark what was given for this entry: the next one needs approvals of its own."""
    same = (table.c.model == version.model, table.c.version == version.version, table.c.stage == stage.value)
    keys = tx.execute(select(*table.primary_key.columns).where(*same, table.c.spent_at.is_(None))).all()
    tx.execute(update(table).where(*same, table.c.spent_at.is_(None)).values(spent_at=to_millis(at)))
    return [(table, tuple(key)) for key in keys]
