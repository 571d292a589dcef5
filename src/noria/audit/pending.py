"""Writes on their way into the chain: noted in their own transaction, beside each other, and moved there in order.

Appending to the chain takes the one lock of all writers. What many clients write at once leaves a note instead; a
server moves the notes within a second, and so does everything that appends to the chain or shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from msgspec import json
from sqlalchemy import Insert, Row, delete, insert, select

from noria.audit import seals, tallies
from noria.audit.caller import Caller, caller
from noria.audit.chain import Draft, link
from noria.audit.seals import RowKey
from noria.audit.tallies import Tally
from noria.clock import SystemClock, to_millis
from noria.store.database import Database, Transaction, to_json, unnested
from noria.store.tables import audit_pending, metadata

_MOST_SUBJECTS = 500  # in one entry
_LONGEST_SUBJECT = 512
_NAMES = [column.name for column in audit_pending.c if column is not audit_pending.c.id]
_PREFIX = "note_"
_INSERT = insert(audit_pending).inline()  # nobody wants to know the ids


@dataclass(frozen=True, slots=True)
class Note:
    """One write: what was done to what, which rows it ``changed``, and a tally of those it only added.

    A tally of several subjects, its own among them, tells of writes to all of these.
    """

    action: str
    subject: str
    caller: Caller
    changed: Sequence[RowKey] = ()
    tally: Tally = field(default_factory=dict)
    detail: Mapping[str, object] = field(default_factory=dict)
    at: datetime | None = None


def note(
    tx: Transaction,
    action: str,
    subject: str,
    *,
    changed: Sequence[RowKey] = (),
    tally: Tally | None = None,
    detail: Mapping[str, object] | None = None,
    at: datetime | None = None,
) -> None:
    """Leave a note of a write, in its transaction: both commit, or neither.

    Notes without a ``detail`` of their own are put together in one entry. The actor is whoever acts in this context.
    """
    note_all(tx, [Note(action, subject, caller(), changed, tally or {}, detail or {}, at)])


def note_all(tx: Transaction, notes: Sequence[Note]) -> None:
    """Leave several notes."""
    rows = [_row(one) for one in notes]
    if rows:
        tx.execute(_INSERT, rows if len(rows) > 1 else rows[0])


def noting() -> Insert:
    """PostgreSQL's statement that leaves notes, to be part of another; its parameters are ``notes_as_columns``."""
    return insert(audit_pending).from_select(_NAMES, unnested([audit_pending.c[name] for name in _NAMES], _PREFIX))


def notes_as_columns(notes: Sequence[Note]) -> dict[str, list[object]]:
    """The notes as one list a column."""
    rows = [_row(one) for one in notes]
    return {_PREFIX + name: [row[name] for row in rows] for name in _NAMES}


def settle(tx: Transaction) -> None:
    """Move every note into the chain; takes a transaction of ``Database.write``."""
    rows = tx.execute(select(audit_pending).order_by(audit_pending.c.id)).all()
    if not rows:
        return
    link(tx, [_draft(tx, group) for group in _grouped(rows)])
    tx.execute(delete(audit_pending).where(audit_pending.c.id <= rows[-1].id))


def settle_all(database: Database) -> None:
    """``settle`` in a transaction of its own, which is only begun when there is something."""
    with database.read() as tx:
        waiting = tx.execute(select(audit_pending.c.id).limit(1)).first()
    if waiting is not None:
        with database.write() as tx:
            settle(tx)


def unsettled(tx: Transaction) -> tuple[set[str], Tally]:
    """The names of the rows that notes say were changed, and what they say was added."""
    names: set[str] = set()
    added: dict[str, dict[str, tallies.Counted]] = {}
    for row in tx.execute(select(audit_pending.c.changed, audit_pending.c.tally)):
        names |= {seals.name_of(*key) for key in _changed([row])}
        tallies.add(added, tallies.read(json.decode(row.tally)))
    return names, added


def _row(one: Note) -> dict[str, object]:
    return {
        "recorded_at": to_millis(one.at or SystemClock().now()),
        "actor": one.caller.actor,
        "action": one.action,
        "subject": one.subject[:_LONGEST_SUBJECT],
        "request_id": one.caller.request_id,
        "detail": to_json(one.detail) if one.detail else "{}",
        "changed": to_json([[table.name, *key] for table, key in one.changed]) if one.changed else "[]",
        "tally": json.encode(tallies.written(one.tally)).decode() if one.tally else "{}",
    }


def _grouped(rows: Iterable[Row[Any]]) -> list[list[Row[Any]]]:
    """What makes one entry: a note that has a detail, or those of one actor's one action, by the first of each."""
    groups: list[list[Row[Any]]] = []
    by_kind: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        kind = row.actor, row.action
        group = by_kind.get(kind)
        if row.detail != "{}":
            groups.append([row])
        elif group is None or len(group) >= _MOST_SUBJECTS:
            by_kind[kind] = [row]
            groups.append(by_kind[kind])
        else:
            group.append(row)
    return groups


def _draft(tx: Transaction, group: Sequence[Row[Any]]) -> Draft:
    """The entry of a group: whatever it counts is counted together, the rows it names are sealed as they now are."""
    first, last = group[0], group[-1]
    subjects: dict[str, None] = {}
    added: dict[str, dict[str, tallies.Counted]] = {}
    for row in group:
        tally = tallies.read(json.decode(row.tally))
        tallies.add(added, tally)
        subjects |= dict.fromkeys([row.subject, *(tally if row.subject in tally else ())])
    detail: dict[str, object] = json.decode(first.detail)
    if len(group) > 1:
        detail |= {"notes": len(group), "since": first.recorded_at}
    elif first.request_id:
        detail["request_id"] = first.request_id
    if len(subjects) > 1:
        detail["subjects"] = list(subjects)
    if added:
        detail["tally"] = tallies.written(added)
    others = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
    return Draft(
        at_millis=last.recorded_at,
        actor=first.actor,
        action=first.action,
        subject=f"{first.subject[: _LONGEST_SUBJECT - len(others)]}{others}",
        detail=detail,
        seals=seals.take(tx, list(dict.fromkeys(_changed(group)))),
    )


def _changed(group: Iterable[Any]) -> list[RowKey]:
    named = (row.changed for row in group if row.changed != "[]")
    return [(metadata.tables[table], tuple(key)) for changed in named for table, *key in json.decode(changed)]
