"""Experiments, runs, what they logged, and what data they read."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from noria.store.tables.schema import metadata, name_column

experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", String(32), primary_key=True),
    # SQLite minds no length, and could only change what it says by copying the table.
    Column("name", name_column().with_variant(name_column(500), "postgresql"), nullable=False, unique=True),
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
    Column("name", name_column(), nullable=False),
    Column("user_id", name_column(), nullable=False),
    Column("status", String(16), nullable=False),
    Column("lifecycle_stage", String(16), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("artifact_uri", Text, nullable=False),
    Column("registered_as", name_column(512)),
    Column("frozen", Integer, nullable=False, server_default="0"),
    # FAILED or KILLED once the run has ever ended so, whatever is said of it afterwards.
    Column("failed_as", String(16), nullable=False, server_default=""),
)

run_params = Table(
    "run_params",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", name_column(), primary_key=True),
    Column("value", Text, nullable=False),
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", name_column(), primary_key=True),
    Column("value", Text, nullable=False),
)

# The primary key is the order histories are read in, and what makes a repeated value the same value.
run_metrics = Table(
    "run_metrics",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("key", name_column(), primary_key=True),
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
    Column("key", name_column(), primary_key=True),
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
    Column("dataset_digest", name_column(64), primary_key=True),
    Column("dataset_name", name_column(), primary_key=True),
    Column("context", name_column(), nullable=False, server_default=""),
    Column("document", Text, nullable=False),
)

logged_models = Table(
    "logged_models",
    metadata,
    Column("model_id", String(64), primary_key=True),
    Column("experiment_id", ForeignKey("experiments.experiment_id"), nullable=False, index=True),
    Column("name", name_column(), nullable=False),
    Column("source_run_id", String(32), index=True),
    Column("artifact_uri", Text, nullable=False),
    Column("status", String(32), nullable=False),
    Column("model_type", name_column(), nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("params", Text, nullable=False, server_default="{}"),
    Column("tags", Text, nullable=False, server_default="{}"),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("dataset_version_id", String(64), primary_key=True),
    Column("name", name_column(), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("columns", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

pipeline_steps = Table(
    "pipeline_steps",
    metadata,
    Column("pipeline_id", name_column(), primary_key=True),
    Column("step", name_column(), primary_key=True),
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
    Column("key", name_column(), primary_key=True),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", String(32), primary_key=True),
    Column("value", Float, nullable=False),
    Column("is_nan", Integer, nullable=False),
    Column("dataset_name", name_column(500), nullable=False, server_default=""),
    Column("dataset_digest", name_column(64), nullable=False, server_default=""),
)
