"""Every SQL table, in one place: the only description of the schema outside the migrations.

Instants are integer milliseconds since 1970-01-01T00:00Z; free-form values are JSON text.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

ADDED = {"added": True}
"""Marks a column that a governed table got after its first revision: while empty it is not part of the row's seal."""


def _name(length: int = 256) -> String:
    return String(length)


audit_entries = Table(
    "audit_entries",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("actor", _name(), nullable=False),
    Column("action", _name(64), nullable=False),
    Column("subject", _name(512), nullable=False),
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
    Column("actor", _name(), nullable=False),
    Column("action", _name(64), nullable=False),
    Column("subject", _name(512), nullable=False),
    Column("request_id", _name(64), nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default="{}"),
    Column("changed", Text, nullable=False, server_default="[]"),
    Column("tally", Text, nullable=False, server_default="{}"),
)

experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", String(32), primary_key=True),
    # SQLite minds no length, and could only change what it says by copying the table.
    Column("name", _name().with_variant(_name(500), "postgresql"), nullable=False, unique=True),
    Column("artifact_location", Text, nullable=False),
    Column("lifecycle_stage", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("tags", Text, nullable=False, server_default="{}"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("experiment_id", ForeignKey("experiments.experiment_id"), nullable=False, index=True),
    Column("name", _name(), nullable=False),
    Column("user_id", _name(), nullable=False),
    Column("status", String(16), nullable=False),
    Column("lifecycle_stage", String(16), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("artifact_uri", Text, nullable=False),
    Column("registered_as", _name(512)),
    Column("frozen", Integer, nullable=False, server_default="0"),
    # FAILED or KILLED once the run has ever ended so, whatever is said of it afterwards.
    Column("failed_as", String(16), nullable=False, server_default=""),
)

run_params = Table(
    "run_params",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("value", Text, nullable=False),
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("value", Text, nullable=False),
)

# The primary key is the order histories are read in, and what makes a repeated value the same value.
run_metrics = Table(
    "run_metrics",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float, primary_key=True),
    Column("is_nan", Integer, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

latest_metrics = Table(
    "latest_metrics",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("value", Float, nullable=False),
    Column("is_nan", Integer, nullable=False),
    Index("latest_metrics_by_value", "key", "value"),
    sqlite_with_rowid=False,
)

run_inputs = Table(
    "run_inputs",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("dataset_digest", _name(64), primary_key=True),
    Column("dataset_name", _name(), primary_key=True),
    Column("context", _name(), nullable=False, server_default=""),
    Column("document", Text, nullable=False),
)

logged_models = Table(
    "logged_models",
    metadata,
    Column("model_id", String(64), primary_key=True),
    Column("experiment_id", ForeignKey("experiments.experiment_id"), nullable=False, index=True),
    Column("name", _name(), nullable=False),
    Column("source_run_id", String(32), index=True),
    Column("artifact_uri", Text, nullable=False),
    Column("status", String(32), nullable=False),
    Column("model_type", _name(), nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("params", Text, nullable=False, server_default="{}"),
    Column("tags", Text, nullable=False, server_default="{}"),
)

traces = Table(
    "traces",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("experiment_id", ForeignKey("experiments.experiment_id"), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("duration_ms", BigInteger),
    Column("state", String(32), nullable=False),
    Column("client_request_id", _name()),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Index("traces_by_time", "experiment_id", "started_at"),
)

trace_tags = Table(
    "trace_tags",
    metadata,
    Column("trace_id", ForeignKey("traces.trace_id"), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("value", Text, nullable=False),
)

trace_metadata = Table(
    "trace_metadata",
    metadata,
    Column("trace_id", ForeignKey("traces.trace_id"), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("value", Text, nullable=False),
)

# A link may be told before the trace is: clients send both beside each other.
trace_links = Table(
    "trace_links",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("target", _name(512), primary_key=True),
    Index("trace_links_by_target", "kind", "target"),
)

spans = Table(
    "spans",
    metadata,
    Column("trace_id", ForeignKey("traces.trace_id"), primary_key=True),
    Column("span_id", String(16), primary_key=True),
    Column("parent_id", String(16)),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)

assessments = Table(
    "assessments",
    metadata,
    Column("assessment_id", String(64), primary_key=True),
    Column("trace_id", ForeignKey("traces.trace_id"), nullable=False, index=True),
    Column("name", _name(), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("value", Text, nullable=False),
    Column("number", Float),
    Column("valid", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("dataset_version_id", String(64), primary_key=True),
    Column("name", _name(), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("columns", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

registered_models = Table(
    "registered_models",
    metadata,
    Column("name", _name(), primary_key=True),
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
    Column("algorithm", _name(), nullable=False),
    Column("metrics", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_by", _name(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("idempotency_key", _name(), unique=True),
    Column("run_link", Text, nullable=False, server_default="", info=ADDED),
    # What the client called the source when that was not its place: models:/NAME/1, models:/m-ID, runs:/ID/model.
    Column("named_source", Text, nullable=False, server_default="", info=ADDED),
    Index("model_versions_by_source", "source"),  # a hash on PostgreSQL: to say so here would load its whole dialect
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model", ForeignKey("registered_models.name", onupdate="CASCADE"), primary_key=True),
    Column("alias", _name(), primary_key=True),
    Column("version", Integer, nullable=False),
)

# Every move of an alias; without a version before it was new, without one after it was removed.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", _name(), nullable=False),
    Column("alias", _name(), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("actor", _name(), nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Index("alias_moves_by_model", "model", "id"),
)

users = Table(
    "users",
    metadata,
    Column("name", _name(), primary_key=True),
    Column("origin", _name(512), nullable=False),
    Column("password_hash", Text),
    Column("disabled", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

role_grants = Table(
    "role_grants",
    metadata,
    Column("user_name", ForeignKey("users.name"), primary_key=True),
    Column("role", String(16), primary_key=True),
    Column("pattern", _name(), primary_key=True),
    Column("granted_at", BigInteger, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("user_name", ForeignKey("users.name"), nullable=False, index=True),
    Column("label", _name(), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

approvals = Table(
    "approvals",
    metadata,
    Column("model", _name(), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("stage", String(16), primary_key=True),
    Column("actor", _name(), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("approved_at", BigInteger, nullable=False),
    Column("roles", Text, nullable=False, server_default="", info=ADDED),
    Column("spent_at", BigInteger, info=ADDED),  # when the version entered the stage by it; once is all it counts for
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", _name(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("from_stage", String(16), nullable=False),
    Column("to_stage", String(16), nullable=False),
    Column("actor", _name(), nullable=False),
    Column("reason", Text, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Index("transitions_by_model", "model", "version"),
)

route_tables = Table(
    "route_tables",
    metadata,
    Column("deployment", _name(), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("variants", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", _name(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("salt", String(32), nullable=False, server_default="", info=ADDED),
    Column("unit", _name(), nullable=False, server_default="", info=ADDED),
)

# What is served under which name; ``follows`` is the alias or stage of the model whose version it serves, if any.
deployments = Table(
    "deployments",
    metadata,
    Column("deployment", _name(), primary_key=True),
    Column("model", _name(), nullable=False),
    Column("follows", _name(), nullable=False, server_default=""),
    Column("unit", _name(), nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", _name(), nullable=False),
    Column("withdrawn_at", BigInteger),
)

# The form a version is served in, where that is not the folder it was registered with.
served_models = Table(
    "served_models",
    metadata,
    Column("model", _name(), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("notes", Text, nullable=False),
    Column("prepared_at", BigInteger, nullable=False),
    Column("prepared_by", _name(), nullable=False),
)

# Who may ask a deployment for predictions, by the hash of a random key; without any, everybody.
gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("deployment", _name(), nullable=False, index=True),
    Column("name", _name(), nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", _name(), nullable=False),
    Column("revoked_at", BigInteger),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_id", String(32), primary_key=True),
    Column("deployment", _name(), nullable=False),
    Column("model", _name(), nullable=False),
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
    Column("started_by", _name(), nullable=False, server_default="", info=ADDED),
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

monitor_windows = Table(
    "monitor_windows",
    metadata,
    Column("deployment", _name(), primary_key=True),
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
    Column("deployment", _name(), nullable=False),
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

pipeline_steps = Table(
    "pipeline_steps",
    metadata,
    Column("pipeline_id", _name(), primary_key=True),
    Column("step", _name(), primary_key=True),
    Column("result", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
)

run_outputs = Table(
    "run_outputs",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("model_id", String(64), primary_key=True),
    Column("step", BigInteger, nullable=False),
)

run_model_inputs = Table(
    "run_model_inputs",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("model_id", String(64), primary_key=True),
)

# What runs measured of a logged model, beside the run's own history; an empty dataset is none.
logged_model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("model_id", String(64), primary_key=True),
    Column("key", _name(), primary_key=True),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", String(32), primary_key=True),
    Column("value", Float, nullable=False),
    Column("is_nan", Integer, nullable=False),
    Column("dataset_name", _name(500), nullable=False, server_default=""),
    Column("dataset_digest", _name(64), nullable=False, server_default=""),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", String(36), primary_key=True),
    Column("name", _name(), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("events", Text, nullable=False),
    Column("secret", Text, nullable=False, server_default=""),  # as it is: it has to sign
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# The outbox. The sequence is the order of the changes; claimed_by is the sender that has the row until claimed_until.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("delivery_id", String(36), nullable=False, unique=True),
    Column("webhook_id", ForeignKey("webhooks.webhook_id"), nullable=False),
    Column("event", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("claimed_by", String(32), nullable=False, server_default=""),
    Column("claimed_until", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column("reason", Text, nullable=False, server_default=""),
    Index("webhook_deliveries_by_status", "status", "webhook_id", "sequence"),
)

# What was applied to a feature store, every version; ``code`` is the pickled function of a definition that has one.
feature_definitions = Table(
    "feature_definitions",
    metadata,
    Column("project", _name(), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", _name(), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("content_hash", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("code", Text, nullable=False, server_default=""),
    Column("active", Integer, nullable=False),
    Column("applied_at", BigInteger, nullable=False),
    Column("applied_by", _name(), nullable=False),
)

# Event times that were brought online: the next increment of a view starts at the latest ``until``.
materializations = Table(
    "materializations",
    metadata,
    Column("materialization_id", String(32), primary_key=True),
    Column("project", _name(), nullable=False),
    Column("view", _name(), nullable=False),
    Column("since", BigInteger),
    Column("until", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Index("materializations_by_view", "project", "view", "until"),
)

# Which share of the feature values that a version served was what the offline join gives; a policy may ask for it.
parity_checks = Table(
    "parity_checks",
    metadata,
    Column("check_id", String(32), primary_key=True),
    Column("model", _name(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("predictions", BigInteger, nullable=False),
    Column("values", BigInteger, nullable=False),
    Column("equal", BigInteger, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    Index("parity_checks_by_version", "model", "version", "checked_at"),
)
