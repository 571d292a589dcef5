"""Verification: the chain holds together, and the records are what it says."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from typing import Any

from sqlalchemy import select

from noria.audit import pending, seals, tallies
from noria.audit.chain import GENESIS_HASH, REMEDY, Verification, hash_at, walk
from noria.audit.tallies import METRICS, PARAMS, Counted
from noria.errors import BrokenChain
from noria.store.database import Transaction, stream
from noria.store.tables import latest_metrics, run_metrics, run_params

_FAULTS_SHOWN = 20
_NOTHING: Counted = (0, 0)


def verify(tx: Transaction, anchors: Sequence[Verification] = (), *, tracking: bool = True) -> Verification:
    """Walk the whole chain, then hold the records against it; with ``tracking`` those of every run, too.

    Raises BrokenChain at the first entry that was edited, removed or moved, and for every record that differs from what
    the chain sealed. A tail cut off together with its changes cannot be seen from inside: ``anchors`` are earlier
    verifications that were kept elsewhere, each of which the chain must still contain. What was noted and is not in
    the chain yet is taken from the notes.
    """
    heads, sealed = {0: GENESIS_HASH}, dict[str, str | None]()
    added: dict[str, dict[str, Counted]] = {}
    for row in walk(tx, Verification(0, GENESIS_HASH)):
        sealed |= {
            name: seal for name, seal in json.loads(row.seals).items() if tracking or not seals.is_tracking(name)
        }
        heads[row.sequence] = row.entry_hash
        if tracking and '"tally"' in row.detail:
            tallies.add(added, tallies.read(json.loads(row.detail).get("tally")))
    entries = len(heads) - 1
    for anchor in anchors:
        if heads.get(anchor.entries) != anchor.head:
            raise BrokenChain(
                f"the chain has {entries} entries and does not continue the anchor of entry {anchor.entries}",
                remedy=REMEDY,
            )
    open_rows, noted = pending.unsettled(tx)
    found = list(seals.faults(tx, seals.REGISTRY, sealed, open_rows.__contains__))
    if tracking:
        tallies.add(added, noted)
        found += _tracking_faults(tx, sealed, added, open_rows)
    if found:
        shown = found[:_FAULTS_SHOWN] + [f"and {len(found) - _FAULTS_SHOWN} more"] * (len(found) > _FAULTS_SHOWN)
        raise BrokenChain("the records are not what the audit chain says", details=shown, remedy=REMEDY)
    return Verification(entries, heads[entries])


def verify_since(tx: Transaction, known: Verification) -> Verification:
    """Walk only what came after an earlier verification; what that one saw is not looked at again.

    Raises BrokenChain at an entry that was edited, removed or moved, and when the chain does not continue ``known``.
    """
    if known.entries and hash_at(tx, known.entries) != known.head:
        raise BrokenChain(f"the chain does not continue what it was at entry {known.entries}", remedy=REMEDY)
    found = known
    for row in walk(tx, known):
        found = Verification(row.sequence, row.entry_hash)
    return found


def _tracking_faults(
    tx: Transaction, sealed: Mapping[str, str | None], added: dict[str, dict[str, Counted]], open_rows: Collection[str]
) -> Iterator[str]:
    yield from seals.faults(tx, seals.TRACKING, sealed, open_rows.__contains__)
    yield from _sum_faults(PARAMS, dict(_params(tx)), added)
    values: dict[str, Counted] = {}
    yield from _metrics(tx, values)
    yield from _sum_faults(METRICS, values, added)


def _sum_faults(kind: str, there: Mapping[str, Counted], said: Mapping[str, Mapping[str, Counted]]) -> Iterator[str]:
    """Every run whose rows do not add up to what was said when they were written."""
    expected = {subject: kinds.get(kind, _NOTHING) for subject, kinds in said.items()}
    for subject in sorted({*there, *expected}):
        found, told = there.get(subject, _NOTHING), expected.get(subject, _NOTHING)
        if found[0] != told[0]:
            yield f"{kind} of {subject}: {found[0]} are in the records, {told[0]} were written"
        elif found != told:
            yield f"{kind} of {subject} are not the {told[0]} that were written"


def _params(tx: Transaction) -> Iterator[tuple[str, Counted]]:
    query = select(run_params.c.run_id, run_params.c.key, run_params.c.value).order_by(run_params.c.run_id)
    for run_id, rows in groupby(_rows(tx, query), key=lambda row: row[0]):
        yield f"run:{run_id}", tallies.of_params((key, value) for _, key, value in rows)


def _metrics(tx: Transaction, into: dict[str, Counted]) -> Iterator[str]:
    """Fill in what the histories of every run add up to; and the first newest value that is not its history's last."""
    table, newest = run_metrics.c, latest_metrics.c
    place = table.step, table.timestamp, table.value, table.is_nan
    query = select(table.run_id, table.key, *place).order_by(table.run_id, table.key, *place)
    of_newest = select(newest.run_id, newest.key, newest.step, newest.timestamp, newest.value)
    kept, wrong = _rows(tx, of_newest.order_by(newest.run_id, newest.key)), ""
    for run_id, rows in groupby(_rows(tx, query), key=lambda row: row[0]):
        lasts: list[tuple[Any, ...]] = []
        into[f"run:{run_id}"] = tallies.of_metrics(_noting_lasts(rows, lasts))
        if not wrong and [(run_id, *last) for last in lasts] != [tuple(row) for row in islice(kept, len(lasts))]:
            wrong = f"run:{run_id}"
    if not wrong and (left := next(kept, None)) is not None:
        wrong = f"run:{left[0]}"
    if wrong:
        yield f"the newest metrics of {wrong} are not the last of its history"


def _noting_lasts(rows: Iterable[Any], lasts: list[tuple[Any, ...]]) -> Iterator[tuple[str, int, int, float, int]]:
    """(key, step, timestamp, value, is_nan) of the rows of a run; notes (key, step, timestamp, value) of each last."""
    before: tuple[str, int, int, float, int] | None = None
    for _, *row in rows:
        if before is not None and before[0] != row[0]:
            lasts.append(before[:4])
        before = tuple(row)
        yield before
    if before is not None:
        lasts.append(before[:4])


def _rows(tx: Transaction, query: Any) -> Iterator[Any]:
    return chain.from_iterable(stream(tx, query))
