"""A hash chain: each entry's hash covers its content, the rows it changed and the hash before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import Row, insert, or_, select

from noria.audit.seals import Seals
from noria.clock import from_millis
from noria.errors import BrokenChain
from noria.store.database import Transaction, from_json, stream, to_json
from noria.store.tables import audit_entries

GENESIS_HASH = "0" * 64
REMEDY = "The database was changed outside Noria: restore a copy whose chain verifies."


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One recorded change. ``subject`` is ``kind:name``, ``detail`` holds before, after and reason."""

    sequence: int
    recorded_at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, object]
    entry_hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a complete walk along the chain found."""

    entries: int
    head: str


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has a place in the chain."""

    at_millis: int
    actor: str
    action: str
    subject: str
    detail: Mapping[str, object]
    seals: Seals


def link(tx: Transaction, drafts: Sequence[Draft]) -> None:
    """Put entries at the end of the chain, in that order."""
    last = tx.execute(
        select(audit_entries.c.sequence, audit_entries.c.entry_hash).order_by(audit_entries.c.sequence.desc()).limit(1)
    ).first()
    before, previous = (0, GENESIS_HASH) if last is None else (last.sequence, last.entry_hash)
    rows = []
    for sequence, draft in enumerate(drafts, start=before + 1):
        row = {
            "sequence": sequence,
            "recorded_at": draft.at_millis,
            "actor": draft.actor,
            "action": draft.action,
            "subject": draft.subject,
            "detail": to_json(draft.detail),
            "seals": to_json(draft.seals),
            "previous_hash": previous,
        }
        previous = _hash(row)
        rows.append({**row, "entry_hash": previous})
    tx.execute(insert(audit_entries), rows)


def entries(
    tx: Transaction,
    *,
    limit: int = 100,
    newest_first: bool = True,
    about: str = "",
    without: Sequence[str] = (),
) -> list[AuditEntry]:
    """The latest (or first) ``limit`` entries, of those whose subject or detail holds the text ``about``.

    ``without`` leaves out kinds of actions, such as ``run``.
    """
    order = audit_entries.c.sequence.desc() if newest_first else audit_entries.c.sequence
    query = select(audit_entries).order_by(order).limit(limit)
    if about:
        columns = audit_entries.c.subject, audit_entries.c.detail
        query = query.where(or_(*(column.contains(about, autoescape=True) for column in columns)))
    for kind in without:
        query = query.where(~audit_entries.c.action.startswith(f"{kind}.", autoescape=True))
    return [_entry(row) for row in tx.execute(query)]


def walk(tx: Transaction, known: Verification) -> Iterator[Row[Any]]:
    """The entries after those known. Raises BrokenChain at the first that does not continue the one before it."""
    query = select(audit_entries).where(audit_entries.c.sequence > known.entries)
    expected, previous = known.entries + 1, known.head
    for row in chain.from_iterable(stream(tx, query.order_by(audit_entries.c.sequence))):
        for failure in _faults(row, expected, previous):
            raise BrokenChain(f"audit entry {row.sequence} {failure}", remedy=REMEDY)
        expected, previous = row.sequence + 1, row.entry_hash
        yield row


def hash_at(tx: Transaction, sequence: int) -> str | None:
    """The hash of one entry; None when there is none."""
    return tx.execute(select(audit_entries.c.entry_hash).where(audit_entries.c.sequence == sequence)).scalar()


def _faults(row: Row[tuple[object, ...]], expected: int, previous: str) -> Iterator[str]:
    if row.sequence != expected:
        yield f"follows a gap: entry {expected} is missing"
    if row.previous_hash != previous:
        yield "does not continue the entry before it"
    if row.entry_hash != _hash(dict(row._mapping)):
        yield "does not match its own hash: its content was edited"


def _hash(row: Mapping[str, object]) -> str:
    fields = ("sequence", "recorded_at", "actor", "action", "subject", "detail", "seals", "previous_hash")
    return hashlib.sha256(to_json([row[field] for field in fields]).encode()).hexdigest()


def _entry(row: Row[tuple[object, ...]]) -> AuditEntry:
    return AuditEntry(
        sequence=row.sequence,
        recorded_at=from_millis(row.recorded_at),
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        detail=from_json(row.detail),
        entry_hash=row.entry_hash,
    )
