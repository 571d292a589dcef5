"""What is served, how versions are rolled out, and what monitoring says of them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from noria.store.tables.schema import ADDED, metadata, name_column

route_tables = Table(
    "route_tables",
    metadata,
    Column("deployment", name_column(), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("variants", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", name_column(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("salt", String(32), nullable=False, server_default="", info=ADDED),
    Column("unit", name_column(), nullable=False, server_default="", info=ADDED),
)

# What is served under which name; ``follows`` is the alias or stage of the model whose version it serves, if any.
deployments = Table(
    "deployments",
    metadata,
    Column("deployment", name_column(), primary_key=True),
    Column("model", name_column(), nullable=False),
    Column("follows", name_column(), nullable=False, server_default=""),
    Column("unit", name_column(), nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", name_column(), nullable=False),
    Column("withdrawn_at", BigInteger),
)

# The form a version is served in, where that is not the folder it was registered with.
served_models = Table(
    "served_models",
    metadata,
    Column("model", name_column(), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("notes", Text, nullable=False),
    Column("prepared_at", BigInteger, nullable=False),
    Column("prepared_by", name_column(), nullable=False),
)

# Who may ask a deployment for predictions, by the hash of a random key; without any, everybody.
gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("deployment", name_column(), nullable=False, index=True),
    Column("name", name_column(), nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", name_column(), nullable=False),
    Column("revoked_at", BigInteger),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_id", String(32), primary_key=True),
    Column("deployment", name_column(), nullable=False),
    Column("model", name_column(), nullable=False),
    Column("champion", Integer, nullable=False),
    Column("challenger", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("step_started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("strategy", String(16), nullable=False, server_default="canary", info=ADDED),
    Column("challengers", Text, nullable=False, server_default="", info=ADDED),
    Column("plan", Text, nullable=False, server_default="", info=ADDED),
    Column("started_by", name_column(), nullable=False, server_default="", info=ADDED),
    Column("reason", Text, nullable=False, server_default="", info=ADDED),
    Index("rollouts_by_deployment", "deployment", "status"),
)

# A step of a rollout: the routes it is served by, and what was fixed before its evidence came in.
rollout_steps = Table(
    "rollout_steps",
    metadata,
    Column("rollout_id", ForeignKey("rollouts.rollout_id"), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    Column("fixed", Text, nullable=False, server_default="{}"),
    Column("started_at", BigInteger, nullable=False),
)

# The newest look at each rollout's evidence; those that changed something are among the decisions.
rollout_looks = Table(
    "rollout_looks",
    metadata,
    Column("rollout_id", ForeignKey("rollouts.rollout_id"), primary_key=True),
    Column("evidence", Text, nullable=False),
    Column("looked_at", BigInteger, nullable=False),
)

rollout_decisions = Table(
    "rollout_decisions",
    metadata,
    Column("rollout_id", ForeignKey("rollouts.rollout_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("percent", Float, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("evidence", Text, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
)

# Which share of the traffic a bandit gave each arm, one row a change; ``parameters`` are those of a contextual one.
bandit_shares = Table(
    "bandit_shares",
    metadata,
    Column("rollout_id", ForeignKey("rollouts.rollout_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("shares", Text, nullable=False),
    Column("parameters", Text, nullable=False, server_default=""),
    Column("evidence", Text, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
)

monitor_windows = Table(
    "monitor_windows",
    metadata,
    Column("deployment", name_column(), primary_key=True),
    Column("model_version", Integer, primary_key=True),
    Column("detector", String(64), primary_key=True),
    Column("window_start", BigInteger, primary_key=True),
    Column("rows", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("statistic", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("evidence", Text, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("verdict_id", String(32), primary_key=True),
    Column("deployment", name_column(), nullable=False),
    Column("model_version", Integer, nullable=False),
    Column("detector", String(64), nullable=False),
    Column("statistic", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("window_start", BigInteger, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("outcome", String(64), nullable=False),
    Index("verdicts_by_deployment", "deployment", "raised_at"),
)
