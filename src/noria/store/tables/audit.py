"""The audit trail, and what is to be chained into it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from noria.store.tables.schema import metadata, name_column

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("actor", name_column(), nullable=False),
    Column("action", name_column(64), nullable=False),
    Column("subject", name_column(512), nullable=False),
    Column("detail", Text, nullable=False),
    Column("seals", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("entry_hash", String(64), nullable=False),
)

# Writes that many clients make at once, which are not in the chain yet: they are moved there in the order of their ids.
audit_pending = Table(
    "audit_pending",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("recorded_at", BigInteger, nullable=False),
    Column("actor", name_column(), nullable=False),
    Column("action", name_column(64), nullable=False),
    Column("subject", name_column(512), nullable=False),
    Column("request_id", name_column(64), nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default="{}"),
    Column("changed", Text, nullable=False, server_default="[]"),
    Column("tally", Text, nullable=False, server_default="{}"),
)
