"""Traces, their spans and assessments."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from noria.store.tables.schema import metadata, name_column

traces = Table(
    "traces",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("experiment_id", ForeignKey("experiments.experiment_id"), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("duration_ms", BigInteger),
    Column("state", String(32), nullable=False),
    Column("client_request_id", name_column()),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Index("traces_by_time", "experiment_id", "started_at"),
)

trace_tags = Table(
    "trace_tags",
    metadata,
    Column("trace_id", ForeignKey("traces.trace_id"), primary_key=True),
    Column("key", name_column(), primary_key=True),
    Column("value", Text, nullable=False),
)

trace_metadata = Table(
    "trace_metadata",
    metadata,
    Column("trace_id", ForeignKey("traces.trace_id"), primary_key=True),
    Column("key", name_column(), primary_key=True),
    Column("value", Text, nullable=False),
)

# A link may be told before the trace is: clients send both beside each other.
trace_links = Table(
    "trace_links",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("target", name_column(512), primary_key=True),
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
    Column("name", name_column(), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("value", Text, nullable=False),
    Column("number", Float),
    Column("valid", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
