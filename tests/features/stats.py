"""A view over a Parquet file, for tests and the processes they start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from noria.features import Entity, FeatureView, Field, FileSource
from noria.features.types import Float64, Int64

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=30)
VIEW = FeatureView(
    name="stats",
    entities=[Entity(name="id")],
    schema=[Field(name="value", dtype=Float64), Field(name="number", dtype=Int64)],
    source=FileSource(path="rows.parquet", created_timestamp_column="created"),
)
