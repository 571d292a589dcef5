"""A hash chain: each entry's hash covers its content, the rows it changed and the hash before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select

from noria.audit import seals
from noria.audit.seals import RowKey
from noria.clock import from_millis, to_millis
from noria.errors import BrokenChain
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import audit_entries

GENESIS_HASH = "0" * 64
_REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
_FAULTS_SHOWN = 20
_REMEDY = "The database was changed outside Noria: restore a copy whose chain verifies."


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


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Within the block, every entry names the request that caused it."""
    token = _REQUEST_ID.set(request_id)
    try:
        yield
    finally:
        _REQUEST_ID.reset(token)


def append(
    tx: Transaction,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
    changed: Sequence[RowKey] = (),
) -> None:
    """Add an entry inside the transaction of the change it records, after it: both commit, or neither.

    ``changed`` names the rows it inserted, updated or deleted; their content is sealed with the entry.
    """
    last = tx.execute(
        select(audit_entries.c.sequence, audit_entries.c.entry_hash).order_by(audit_entries.c.sequence.desc()).limit(1)
    ).first()
    if (request_id := _REQUEST_ID.get()) is not None:
        detail = {**detail, "request_id": request_id}
    sequence, previous = (1, GENESIS_HASH) if last is None else (last.sequence + 1, last.entry_hash)
    row = {
        "sequence": sequence,
        "recorded_at": to_millis(at),
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": to_json(detail),
        "seals": to_json(seals.take(tx, changed)),
        "previous_hash": previous,
    }
    tx.execute(insert(audit_entries).values(**row, entry_hash=_hash(row)))


def entries(tx: Transaction, *, limit: int = 100, newest_first: bool = True) -> list[AuditEntry]:
    """The latest (or first) ``limit`` entries."""
    order = audit_entries.c.sequence.desc() if newest_first else audit_entries.c.sequence
    return [_entry(row) for row in tx.execute(select(audit_entries).order_by(order).limit(limit))]


def verify(tx: Transaction, anchors: Sequence[Verification] = ()) -> Verification:
    """Walk the whole chain, then hold the records against it.

    Raises BrokenChain at the first entry that was edited, removed or moved, and for every governed row that differs
    from what the chain sealed. A tail cut off together with its changes cannot be seen from inside: ``anchors`` are
    earlier verifications that were kept elsewhere, each of which the chain must still contain.
    """
    heads = {0: GENESIS_HASH}
    sealed: dict[str, str | None] = {}
    for row in _walk(tx, Verification(0, GENESIS_HASH)):
        sealed |= json.loads(row.seals)
        heads[row.sequence] = row.entry_hash
    entries = len(heads) - 1
    for anchor in anchors:
        if heads.get(anchor.entries) != anchor.head:
            raise BrokenChain(
                f"the chain has {entries} entries and does not continue the anchor of entry {anchor.entries}",
                remedy=_REMEDY,
            )
    found = list(seals.faults(tx, sealed))
    if found:
        shown = found[:_FAULTS_SHOWN] + [f"and {len(found) - _FAULTS_SHOWN} more"] * (len(found) > _FAULTS_SHOWN)
        raise BrokenChain("the records are not what the audit chain says", details=shown, remedy=_REMEDY)
    return Verification(entries, heads[entries])


def verify_since(tx: Transaction, known: Verification) -> Verification:
    """Walk only what came after an earlier verification; what that one saw is not looked at again.

    Raises BrokenChain at an entry that was edited, removed or moved, and when the chain does not continue ``known``.
    """
    last = select(audit_entries.c.entry_hash).where(audit_entries.c.sequence == known.entries)
    if known.entries and tx.execute(last).scalar() != known.head:
        raise BrokenChain(f"the chain does not continue what it was at entry {known.entries}", remedy=_REMEDY)
    found = known
    for row in _walk(tx, known):
        found = Verification(row.sequence, row.entry_hash)
    return found


def _walk(tx: Transaction, known: Verification) -> Iterator[Row[Any]]:
    """The entries after those known. Raises BrokenChain at the first that does not continue the one before it."""
    query = select(audit_entries).where(audit_entries.c.sequence > known.entries)
    expected, previous = known.entries + 1, known.head
    for row in tx.execute(query.order_by(audit_entries.c.sequence)):
        for failure in _faults(row, expected, previous):
            raise BrokenChain(f"audit entry {row.sequence} {failure}", remedy=_REMEDY)
        expected, previous = row.sequence + 1, row.entry_hash
        yield row


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
