"""Registered models, their versions, aliases and stages."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from noria.store.tables.schema import ADDED, metadata, name_column

registered_models = Table(
    "registered_models",
    metadata,
    Column("name", name_column(), primary_key=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("tags", Text, nullable=False, server_default="{}"),
    Column("last_version", Integer, nullable=False, server_default="0", info=ADDED),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("model", ForeignKey("registered_models.name", onupdate="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("semantic_version", String(32), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("status", String(32), nullable=False),
    Column("source", Text, nullable=False),
    Column("run_id", String(32), index=True),
    Column("logged_model_id", String(64)),
    Column("dataset_version_id", String(64)),
    Column("digest", String(64), nullable=False),
    Column("signature", Text, nullable=False),
    Column("algorithm", name_column(), nullable=False),
    Column("metrics", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_by", name_column(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("idempotency_key", name_column(), unique=True),
    Column("run_link", Text, nullable=False, server_default="", info=ADDED),
    # What the client called the source when that was not its place: models:/NAME/1, models:/m-ID, runs:/ID/model.
    Column("named_source", Text, nullable=False, server_default="", info=ADDED),
    Index("model_versions_by_source", "source"),  # a hash on PostgreSQL: to say so here would load its whole dialect
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model", ForeignKey("registered_models.name", onupdate="CASCADE"), primary_key=True),
    Column("alias", name_column(), primary_key=True),
    Column("version", Integer, nullable=False),
)

# Every move of an alias; without a version before it was new, without one after it was removed.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", name_column(), nullable=False),
    Column("alias", name_column(), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("actor", name_column(), nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Index("alias_moves_by_model", "model", "id"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("model", name_column(), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("stage", String(16), primary_key=True),
    Column("actor", name_column(), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("approved_at", BigInteger, nullable=False),
    Column("roles", Text, nullable=False, server_default="", info=ADDED),
    Column("spent_at", BigInteger, info=ADDED),  # when the version entered the stage by it; once is all it counts for
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", name_column(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("from_stage", String(16), nullable=False),
    Column("to_stage", String(16), nullable=False),
    Column("actor", name_column(), nullable=False),
    Column("reason", Text, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Index("transitions_by_model", "model", "version"),
)

# Which share of the feature values that a version served was what the offline join gives; a policy may ask for it.
parity_checks = Table(
    "parity_checks",
    metadata,
    Column("check_id", String(32), primary_key=True),
    Column("model", name_column(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("predictions", BigInteger, nullable=False),
    Column("values", BigInteger, nullable=False),
    Column("equal", BigInteger, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    Index("parity_checks_by_version", "model", "version", "checked_at"),
)
