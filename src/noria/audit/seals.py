"""Seals: digests of the governed rows, kept in the chain, so that no record changes behind its back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, DefaultClause, Row, Table, and_, select

from noria.store import tables
from noria.store.database import Transaction, stream, to_json

REGISTRY: Sequence[Table] = (
    tables.dataset_versions,
    tables.registered_models,
    tables.model_versions,
    tables.model_aliases,
    tables.alias_moves,
    tables.approvals,
    tables.transitions,
    tables.route_tables,
    tables.deployments,
    tables.served_models,
    tables.gateway_keys,
    tables.rollouts,
    tables.rollout_steps,
    tables.rollout_decisions,
    tables.bandit_shares,
    tables.users,
    tables.role_grants,
    tables.api_tokens,
    tables.verdicts,
    tables.webhooks,
    tables.feature_definitions,
    tables.parity_checks,
)
"""Every governed table whose rows only audited changes may touch."""

TRACKING: Sequence[Table] = (tables.experiments, tables.runs, tables.logged_models)
"""The same of what is tracked; there may be very many rows."""

_TRACKING_NAMES = frozenset(table.name for table in TRACKING)

_PARTS: Mapping[Table, Sequence[Table]] = {
    tables.runs: (tables.run_tags, tables.run_inputs, tables.run_outputs, tables.run_model_inputs)
}
"""A table → those whose rows are part of its rows, by its key."""

_SEALED_LATER = frozenset([tables.bandit_shares.name])
"""Tables whose rows have numbers, and had entries without seals once: those before the first sealed one may be any."""

_AT_ONCE = 500

RowKey = tuple[Table, tuple[object, ...]]
"""A row by its table and primary key."""

Seals = Mapping[str, str | None]
"""Name of a row → SHA-256 of its content; None once it is deleted."""


def take(tx: Transaction, rows: Sequence[RowKey]) -> Seals:
    """The seals of ``rows`` as they now stand in the transaction."""
    found: dict[str, str | None] = {name_of(table, key): None for table, key in rows}
    for table in dict.fromkeys(table for table, _ in rows):
        keys = [key for of, key in rows if of is table]
        found |= {one.name: one.digest() for one in _sealable(tx, table, keys)}
    return found


def faults(
    tx: Transaction, checked: Sequence[Table], sealed: Seals, is_open: Callable[[str], bool] = lambda _: False
) -> Iterator[str]:
    """What the tables hold that the chain does not say, and the other way round; ``is_open`` rows may differ."""
    names, first = {table.name for table in checked}, _first_sealed(sealed)
    left = {name: digest for name, digest in sealed.items() if digest is not None and _table_of(name) in names}
    for table in checked:
        for one in _sealable(tx, table, None):
            expected = left.pop(one.name, None)
            if is_open(one.name) or (expected is None and _is_older(one.name, first)):
                continue
            if expected is None:
                yield f"{one.name} is in the records, but in no audit entry"
            elif expected != one.digest() and expected != one.digest(as_before=True):
                yield f"{one.name} was changed without an audit entry"
    yield from (f"{name} was removed without an audit entry" for name in left if not is_open(name))


def _first_sealed(sealed: Collection[str]) -> Mapping[str, int]:
    """Of the rows that were sealed later, the first number that was, by the name without it."""
    found: dict[str, int] = {}
    for name in sealed:
        if _table_of(name) in _SEALED_LATER:
            of, _, number = name.rpartition("/")
            found[of] = min(found.get(of, int(number)), int(number))
    return found


def _is_older(name: str, first: Mapping[str, int]) -> bool:
    of, _, number = name.rpartition("/")
    return _table_of(name) in _SEALED_LATER and (of not in first or int(number) < first[of])


def name_of(table: Table, key: tuple[object, ...]) -> str:
    """What a row is called in the chain."""
    return f"{table.name} {'/'.join(str(part) for part in key)}"


def is_tracking(name: str) -> bool:
    """Whether a row of that name is one of what is tracked."""
    return _table_of(name) in _TRACKING_NAMES


def _table_of(name: str) -> str:
    return name.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class _Sealable:
    """A row, and the content of the rows that are its parts, by their table."""

    name: str
    table: Table
    row: Row[Any]
    parts: Mapping[str, Sequence[object]]

    def digest(self, *, as_before: bool = False) -> str:
        """Of what ``_content`` is."""
        content = _content(self.table, self.row, as_before=as_before)
        return hashlib.sha256(to_json([content, dict(self.parts)] if self.parts else content).encode()).hexdigest()


def _sealable(tx: Transaction, table: Table, keys: Sequence[tuple[object, ...]] | None) -> Iterator[_Sealable]:
    """The rows of those keys, or all."""
    for rows in _rows(tx, table, keys):
        found = [(tuple(row._mapping[column.name] for column in table.primary_key), row) for row in rows]
        parts = _parts(tx, table, [key[0] for key, _ in found])
        for key, row in found:
            own = {of: rows_of[key[0]] for of, rows_of in parts.items() if key[0] in rows_of}
            yield _Sealable(name_of(table, key), table, row, own)


def _rows(tx: Transaction, table: Table, keys: Sequence[tuple[object, ...]] | None) -> Iterator[Sequence[Row[Any]]]:
    """The rows, some hundred at a time."""
    columns = list(table.primary_key)
    if keys is None:
        yield from stream(tx, select(table))
    elif len(columns) == 1:
        for start in range(0, len(keys), _AT_ONCE):
            some = [key[0] for key in keys[start : start + _AT_ONCE]]
            yield tx.execute(select(table).where(columns[0].in_(some))).all()
    else:
        for key in keys:
            same = and_(*(column == value for column, value in zip(columns, key, strict=True)))
            yield tx.execute(select(table).where(same)).all()


def _parts(tx: Transaction, table: Table, keys: Collection[object]) -> dict[str, dict[object, list[object]]]:
    """Table of parts → key → the parts' content, in one order."""
    found: dict[str, dict[object, list[object]]] = {}
    for of in _PARTS.get(table, ()) if keys else ():
        owner = next(iter(of.primary_key))
        for row in tx.execute(select(of).where(owner.in_(keys))):
            content = to_json(_content(of, row))
            found.setdefault(of.name, {}).setdefault(row._mapping[owner.name], []).append(content)
    for rows in found.values():
        for contents in rows.values():
            contents.sort()
    return found


def _content(table: Table, row: Row[Any], *, as_before: bool = False) -> dict[str, object]:
    """All columns; one that was added later counts once it is filled, so that older seals still hold.

    ``as_before`` it counts once it has another value than the one that rows got when it was added.
    """
    late = {one.name: _default(one) if as_before else None for one in table.columns if one.info.get("added")}
    return {name: value for name, value in row._mapping.items() if name not in late or (value and value != late[name])}


def _default(column: Column[Any]) -> object:
    """What rows that are older than the column have in it."""
    return column.server_default.arg if isinstance(column.server_default, DefaultClause) else None
