"""What was brought online: which times of a view, when, and how many rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, insert, select

from noria.clock import from_millis, to_millis
from noria.ids import new_id
from noria.store.database import Transaction
from noria.store.tables import materializations


def record(
    tx: Transaction, project: str, view: str, *, since: datetime | None, until: datetime, rows: int, at: datetime
) -> None:
    """Remember a materialization that ended well."""
    tx.execute(
        insert(materializations).values(
            materialization_id=new_id(),
            project=project,
            view=view,
            since=None if since is None else to_millis(since),
            until=to_millis(until),
            rows=rows,
            recorded_at=to_millis(at),
        )
    )


def latest(tx: Transaction, project: str, since: Mapping[str, datetime] | None = None) -> dict[str, datetime]:
    """View → the time up to which it is online; with ``since`` by what was done from a moment of each view on."""
    table = materializations.c
    query = select(table.view, func.max(table.until)).where(table.project == project).group_by(table.view)
    if since is None:
        return {view: from_millis(until) for view, until in tx.execute(query)}
    found: dict[str, datetime] = {}
    for name, moment in since.items():
        mine = query.where(table.view == name, table.recorded_at >= to_millis(moment))
        found |= {view: from_millis(until) for view, until in tx.execute(mine)}
    return found
