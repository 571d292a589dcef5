"""Seals: digests of the governed rows, kept in the chain, so that no record changes behind its back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Row, Table, and_, select

from noria.store import tables
from noria.store.database import Transaction, to_json

SEALED: Sequence[Table] = (
    tables.dataset_versions,
    tables.registered_models,
    tables.model_versions,
    tables.model_aliases,
    tables.approvals,
    tables.transitions,
    tables.route_tables,
    tables.deployments,
    tables.served_models,
    tables.gateway_keys,
    tables.rollouts,
    tables.rollout_steps,
    tables.rollout_decisions,
    tables.users,
    tables.role_grants,
    tables.api_tokens,
    tables.verdicts,
    tables.webhooks,
    tables.feature_definitions,
    tables.parity_checks,
)
"""Every table whose rows only audited changes may touch."""

RowKey = tuple[Table, tuple[object, ...]]
"""A row by its table and primary key."""

Seals = Mapping[str, str | None]
"""Name of a row → SHA-256 of its content; None once it is deleted."""


def take(tx: Transaction, rows: Sequence[RowKey]) -> Seals:
    """The seals of ``rows`` as they now stand in the transaction."""
    return {_name(table, key): _digest(tx, table, key) for table, key in rows}


def faults(tx: Transaction, sealed: Seals) -> Iterator[str]:
    """What the governed tables hold that the chain does not say, and the other way round."""
    left = {name: digest for name, digest in sealed.items() if digest is not None}
    for table in SEALED:
        for row in tx.execute(select(table)):
            name = _name(table, tuple(row._mapping[column.name] for column in table.primary_key))
            digest = left.pop(name, None)
            if digest is None:
                yield f"{name} is in the records, but in no audit entry"
            elif digest != _row_digest(table, row):
                yield f"{name} was changed without an audit entry"
    for name in left:
        yield f"{name} was removed without an audit entry"


def _digest(tx: Transaction, table: Table, key: tuple[object, ...]) -> str | None:
    same = and_(*(column == value for column, value in zip(table.primary_key, key, strict=True)))
    row = tx.execute(select(table).where(same)).first()
    return None if row is None else _row_digest(table, row)


def _row_digest(table: Table, row: Row[tuple[object, ...]]) -> str:
    """Over all columns; one that was added later counts once it is filled, so that older seals still hold."""
    late = {column.name for column in table.columns if column.info.get("added")}
    content = {name: value for name, value in row._mapping.items() if value or name not in late}
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def _name(table: Table, key: tuple[object, ...]) -> str:
    return f"{table.name} {'/'.join(str(part) for part in key)}"
