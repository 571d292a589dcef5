"""The flights example knows nothing early: hide all that had not happened yet, and its features stay the same."""

from __future__ import annotations

import dataclasses
import importlib.util
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from noria.features import join_as_of

FEATURES = Path(__file__).parents[2] / "examples/flights/features.py"


def load_features():
    spec = importlib.util.spec_from_file_location("flights_features", FEATURES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_it_was(flights: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The table at ``now``: no outcome of a flight that had not landed, no delay of one that had not left."""
    landed, left = pl.col("arrived_at") <= now, pl.col("departed_at") <= now
    return flights.with_columns(
        *(pl.when(landed).then(pl.col(name)).alias(name) for name in ("late", "arr_delay", "arrived_at")),
        *(pl.when(left).then(pl.col(name)).alias(name) for name in ("dep_delay", "departed_at")),
    )


@pytest.mark.parametrize("moment", ["2013-01-03T15:30", "2013-03-10T07:00", "2013-07-10T21:59"])
def test_what_had_not_happened_yet_changes_no_feature(moment):
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    features = load_features()
    year, weather = features.flights(), features.origin_weather()
    hour = pl.col("scheduled").is_between(now.replace(hour=0, minute=0), now)
    asked_at = pl.lit(now).cast(pl.Datetime("ms", "UTC"))
    asked = year.filter(hour).select("flight_id", "carrier", "origin", "dest", asked_at=asked_at)
    known = join_as_of(asked, features.views, event_time="asked_at")

    features.flights = lambda: as_it_was(year, now)
    (weather_view, *others) = features.views
    weather_then = dataclasses.replace(weather_view, source=lambda: weather.filter(pl.col("created_timestamp") <= now))
    assert_frame_equal(join_as_of(asked, [weather_then, *others], event_time="asked_at"), known)
    assert known.height > 100
    assert known.select(pl.col("route_14d__late_share").is_not_null().mean()).item() > 0.9
