"""Definitions of features, and what was brought online."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from noria.store.tables.schema import metadata, name_column

# What was applied to a feature store, every version; ``code`` is the pickled function of a definition that has one.
feature_definitions = Table(
    "feature_definitions",
    metadata,
    Column("project", name_column(), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", name_column(), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("content_hash", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("code", Text, nullable=False, server_default=""),
    Column("active", Integer, nullable=False),
    Column("applied_at", BigInteger, nullable=False),
    Column("applied_by", name_column(), nullable=False),
)

# Event times that were brought online: the next increment of a view starts at the latest ``until``.
materializations = Table(
    "materializations",
    metadata,
    Column("materialization_id", String(32), primary_key=True),
    Column("project", name_column(), nullable=False),
    Column("view", name_column(), nullable=False),
    Column("since", BigInteger),
    Column("until", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Index("materializations_by_view", "project", "view", "until"),
)
