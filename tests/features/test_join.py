"""The point-in-time join against a plain, row-by-row reading of its definition."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from features.oracle import newest
from noria.errors import InvalidData, InvalidInput
from noria.features import (
    Aggregation,
    Entity,
    FeatureView,
    Field,
    FileSource,
    OnlineFeatures,
    ViewSpec,
    join_as_of,
)
from noria.features.definitions import Projection
from noria.features.layout import write_sorted
from noria.features.online import visible_between
from noria.features.partitions import by_key, put_together
from noria.features.sources import FrameSource
from noria.features.types import Array, Bool, Bytes, Float64, Int64, String, UnixTimestamp
from noria.store import open_keyvalue

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = [date(2026, 1, day) for day in (1, 2, 3)]
KEYS = ["a", "b"]
KEY, VALUE = Entity(name="key"), Field(name="value", dtype=Float64)
TIME = pl.Datetime("us", "UTC")
SCHEMA = {"key": pl.String, "event_timestamp": TIME, "created_timestamp": TIME, "value": pl.Float64}


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def view_of(frame: pl.DataFrame, name: str = "v", ttl: timedelta | None = None, **definition: object) -> FeatureView:
    """A view of a frame, of its ``value`` by ``key`` unless said otherwise."""
    wanted = {"entities": [KEY], "schema": [VALUE], "on_missing": "null"} | definition
    return FeatureView(name=name, source=lambda: frame, ttl=ttl, **wanted)  # type: ignore[arg-type]


def history(*rows: tuple[object, ...], **types: pl.DataType) -> pl.DataFrame:
    """Rows of (key, hour of the event, hour of the creation, value)."""
    columns = [[row[i] for row in rows] for i in range(4)]
    times = [[None if hour is None else at(hour) for hour in hours] for hours in columns[1:3]]  # type: ignore[arg-type]
    return pl.DataFrame(dict(zip(SCHEMA, [columns[0], *times, columns[3]], strict=True)), schema=SCHEMA | types)


def asking(*rows: tuple[object, float]) -> pl.DataFrame:
    """Events of (key, hour)."""
    keys, times = [row[0] for row in rows], [at(row[1]) for row in rows]
    return pl.DataFrame({"key": keys, "at": times}, schema_overrides={"at": TIME})


def values(events: pl.DataFrame, view: FeatureView | Projection, **options: object) -> list[object]:
    return join_as_of(events, [view], event_time="at", **options)["v__value"].to_list()  # type: ignore[arg-type]


# Few keys and hours, so that ties, late rows and rows on the very edge of the TTL come up all the time.
some_rows = st.lists(
    st.tuples(
        st.sampled_from([*KEYS, None]),
        st.integers(0, 12),
        st.one_of(st.none(), st.integers(0, 16)),
        st.one_of(st.none(), st.floats(0, 9), st.just(math.nan)),
    ),
    max_size=30,
)
some_events = st.lists(st.tuples(st.sampled_from([*KEYS, "unknown", None]), st.integers(0, 20)), max_size=15)


@settings(max_examples=150)
@given(
    some_rows, some_events, st.one_of(st.none(), st.integers(1, 8)), st.sampled_from(["known", "event"]), st.booleans()
)
def test_every_event_gets_the_row_of_the_definition(rows, asked, ttl_hours, as_of, numeric):
    ttl = None if ttl_hours is None else timedelta(hours=ttl_hours)
    frame, events = history(*rows), asking(*asked).cast({"key": pl.String})
    if numeric:
        codes = {"a": 0, "b": -7, "unknown": 3}
        frame, events = (
            one.with_columns(pl.col("key").replace_strict(codes, default=None, return_dtype=pl.Int64))
            for one in (frame, events)
        )
    joined = join_as_of(events, [view_of(frame, ttl=ttl)], event_time="at", as_of=as_of)
    assert_frame_equal(joined.select("key", "at"), events)
    plain = frame.to_dicts()
    best = [newest(plain, {"key": key}, time, ttl=ttl, as_of=as_of) for key, time in events.iter_rows()]
    expected = pl.Series("v__value", [row and row["value"] for row in best], pl.Float64)
    assert joined["v__value"].equals(expected, null_equal=True)


def test_a_planted_leak_stays_out_of_the_training_frame():
    """The outcome itself, planted as a feature that is recorded one hour after it is asked for."""
    asked = pl.DataFrame({"key": ["a"] * 5, "at": [at(h) for h in range(10, 15)], "label": [1.0, 0, 1, 1, 0]})
    leak = asked.select(
        "key", event_timestamp="at", created_timestamp=pl.col("at").dt.offset_by("1h"), value=pl.col("label") + 100
    )
    assert values(asked, view_of(leak)) == [None, 101.0, 100.0, 101.0, 101.0]
    assert values(asked, view_of(leak), as_of="event") == [101.0, 100.0, 101.0, 101.0, 100.0]


def test_a_value_of_the_very_moment_counts_and_one_a_microsecond_later_does_not():
    rows = history(("a", 1, 1, 1.0), ("a", 2, 2, 2.0))
    events = pl.DataFrame({"key": ["a"] * 3, "at": [at(2) - timedelta(microseconds=1), at(2), at(1)]})
    assert values(events, view_of(rows)) == [1.0, 2.0, 1.0]


def test_a_value_exactly_as_old_as_the_ttl_counts_and_one_a_microsecond_older_does_not():
    events = pl.DataFrame({"key": ["a"] * 2, "at": [at(3), at(3) + timedelta(microseconds=1)]})
    assert values(events, view_of(history(("a", 1, 1, 1.0)), ttl=timedelta(hours=2))) == [1.0, None]


def test_ties_go_to_the_latest_created_then_to_the_last_of_the_source():
    rows = history(("a", 1, 3, 1.0), ("a", 1, 2, 2.0), ("b", 1, 2, 3.0), ("b", 1, 2, 4.0))
    assert values(asking(("a", 5), ("b", 5), ("a", 2)), view_of(rows)) == [1.0, 4.0, 2.0]


def test_a_late_old_row_does_not_replace_a_newer_one():
    rows = history(("a", 5, 5, 5.0), ("a", 1, 8, 1.0))
    assert values(asking(("a", 9)), view_of(rows)) == [5.0]


def test_a_row_without_a_creation_time_was_known_when_it_happened():
    rows = history(("a", 1, None, 1.0), ("a", 1, 0, 2.0))
    assert values(asking(("a", 1), ("a", 0)), view_of(rows)) == [1.0, None]


def test_a_newest_null_is_the_answer_and_nan_stays_nan():
    rows = history(("a", 1, 1, 1.0), ("a", 2, 2, None), ("b", 1, 1, math.nan))
    found = values(asking(("a", 3), ("b", 3)), view_of(rows))
    assert found[0] is None
    assert math.isnan(found[1])


def test_rows_order_columns_and_duplicates_of_the_events_are_kept():
    events = asking(("b", 5), ("a", 1), ("b", 5), ("x", 0)).with_columns(label=pl.Series([1, None, 1, 2]))
    joined = join_as_of(events, [view_of(history(("b", 4, 4, 4.0)))], event_time="at")
    assert_frame_equal(joined.drop("v__value"), events)
    assert joined["v__value"].to_list() == [4.0, None, 4.0, None]


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (pl.Series([1, 2, 300, None], dtype=pl.Int32), pl.Series([1, 2, 3], dtype=pl.Int64)),
        (pl.Series([1, 2, 300, None], dtype=pl.Int64), pl.Series([1, 2, 3], dtype=pl.Int8)),
        (pl.Series([2**64 - 2, 2, 2**63, None], dtype=pl.UInt64), pl.Series([-2, 2, 3], dtype=pl.Int64)),
        (pl.Series([2**63 - 2, 2, -1, None], dtype=pl.Int64), pl.Series([2**63 - 2, 2, 2**64 - 1], dtype=pl.UInt64)),
        (pl.Series([1, 2, 4, None], dtype=pl.Int64), pl.Series(["1", "2", "3"]).cast(pl.Decimal(38, 0))),
        (pl.Series([10**30, 2, 4, None], dtype=pl.Int128), pl.Series([10**30, 2, 3], dtype=pl.Int128)),
        (pl.Series(["x", "y", "q", None], dtype=pl.Categorical), pl.Series(["x", "y", "z"])),
        (pl.Series(["x", "y", "q", None]), pl.Series(["x", "y", "z"], dtype=pl.Categorical)),
        (pl.Series(["x", "y", "q", None]), pl.Series(["x", "y", "z"], dtype=pl.Enum(["z", "y", "x"]))),
        (pl.Series([b"x", b"y", b"q", None]), pl.Series([b"x", b"y", b"z"])),
        (pl.Series([True, False, None, None]), pl.Series([True, False, None])),
        (pl.Series([0.5, 2.0, math.inf, None], dtype=pl.Float32), pl.Series([0.5, 2.0, 3.0])),
        (pl.Series([*DAYS[:2], date(2026, 1, 9), None]), pl.Series(DAYS)),
        (
            pl.Series([at(1), at(2), at(2) + timedelta(microseconds=1), None], dtype=pl.Datetime("us", "UTC")),
            pl.Series([at(1), at(2), at(3)]).dt.replace_time_zone(None).dt.cast_time_unit("ms"),
        ),
    ],
    ids=lambda series: str(series.dtype),
)  # fmt: skip
def test_keys_of_one_kind_meet_whatever_their_types(asked, stored):
    rows = pl.DataFrame({"key": stored, "event_timestamp": [at(0)] * 3, "value": [10.0, 20.0, 30.0]})
    first = 10.0 if asked[0] in stored.to_list() or asked.dtype.is_temporal() else None
    events = pl.DataFrame({"key": asked, "at": [at(1)] * 4})
    assert values(events, view_of(rows)) == [first, 20.0, None, None]


@pytest.mark.parametrize(
    ("asked", "stored", "said"),
    [
        (["1"], [1], "is integer (Int64) in its source and text (String)"),
        ([1], ["1"], "is text (String) in its source and integer (Int64)"),
        ([1.5], [1], "is integer (Int64) in its source and fractional (Float64)"),
        ([at(0)], [1], "and instant (Datetime"),
        ([[1]], [[1]], "cannot be compared"),
    ],
)
def test_keys_of_different_kinds_are_refused(asked, stored, said):
    rows = pl.DataFrame({"key": stored, "event_timestamp": [at(0)], "value": [1.0]})
    with pytest.raises(InvalidData, match="join key 'key' of feature view 'v'") as refused:
        values(pl.DataFrame({"key": asked, "at": [at(1)]}), view_of(rows))
    assert said in refused.value.message


def test_composite_keys_match_as_a_whole_and_a_null_in_one_matches_nothing():
    rows = pl.DataFrame(
        {
            "shop": ["x", "x", "y", None],
            "item": [1, 2, 1, 1],
            "event_timestamp": [at(0)] * 4,
            "value": [1.0, 2.0, 3.0, 4.0],
        }
    )
    view = view_of(rows, entities=[Entity(name="shop"), Entity(name="item")])
    events = pl.DataFrame({"item": [1, 2, 1, 2, 1], "shop": ["y", "x", "x", "y", None], "at": [at(1)] * 5})
    assert values(events, view) == [3.0, 2.0, 1.0, None, None]


def test_a_view_without_entities_is_one_series_for_all():
    rows = history(("", 1, 1, 1.0), ("", 3, 3, 3.0)).drop("key")
    assert values(asking(("a", 2), (None, 4), ("b", 0)), view_of(rows, entities=[])) == [1.0, 3.0, None]


def test_several_views_are_joined_and_projections_restrict_and_order_their_features():
    rows = history(("a", 1, 1, 1.0)).with_columns(other=pl.lit("o"))
    two = [VALUE, Field(name="other", dtype=String)]
    views = view_of(rows, "left", schema=two), view_of(rows, "right", schema=two)
    joined = join_as_of(asking(("a", 2)), [views[0], views[1][["other", "value"]]], event_time="at")
    assert joined.columns[2:] == ["left__value", "left__other", "right__other", "right__value"]
    assert joined.row(0)[2:] == (1.0, "o", "o", 1.0)


def test_a_view_is_joined_twice_under_other_names_and_keys():
    view = view_of(history(("a", 1, 1, 1.0), ("b", 1, 1, 2.0)), "airport")
    events = pl.DataFrame({"from": ["a", "b"], "to": ["b", "a"], "at": [at(2)] * 2})
    origin = view.with_name("origin").with_join_key_map({"key": "from"})
    target = view.with_name("target").with_join_key_map({"key": "to"})
    joined = join_as_of(events, [origin, target], event_time="at")
    assert joined.rows() == [("a", "b", at(2), 1.0, 2.0), ("b", "a", at(2), 2.0, 1.0)]


def test_short_names_are_taken_when_asked_for_and_refused_when_they_collide():
    rows, events = history(("a", 1, 1, 1.0)), asking(("a", 2))
    short = {"event_time": "at", "full_feature_names": False}
    assert join_as_of(events, [view_of(rows)], **short).columns == ["key", "at", "value"]
    with pytest.raises(
        InvalidInput, match="'value' of view 'w' would be called 'value' like feature 'value' of view 'v'"
    ):
        join_as_of(events, [view_of(rows), view_of(rows, "w")], **short)
    with pytest.raises(InvalidInput, match="like a column of the entity frame") as refused:
        join_as_of(events.with_columns(value=1), [view_of(rows)], **short)
    assert "full_feature_names=True" in refused.value.remedy
    with pytest.raises(InvalidInput, match="would be called 'v__value'") as refused:
        join_as_of(events, [view_of(rows), view_of(rows)], event_time="at")
    assert "with_name" in refused.value.remedy


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("source_unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_any_unit_and_zone_meet_as_instants(unit, source_unit, zone):
    def told(frame: pl.DataFrame, name: str, unit: str, zone: str | None) -> pl.DataFrame:
        instant = pl.col(name).dt.convert_time_zone(zone or "UTC")
        instant = instant if zone else instant.dt.replace_time_zone(None)
        return frame.with_columns(instant.dt.cast_time_unit(unit))

    rows = told(history(("a", 1, 1, 1.0), ("a", 2, 2, 2.0)), "event_timestamp", source_unit, zone)
    rows = told(rows, "created_timestamp", "ns" if source_unit == "us" else source_unit, "Asia/Kolkata")
    second = timedelta(milliseconds=1)
    events = pl.DataFrame({"key": ["a"] * 4, "at": [at(2) - second, at(2), at(3), at(3) + second]})
    for asked in (told(events, "at", unit, None), told(events, "at", unit, "Europe/Berlin")):
        assert values(asked, view_of(rows, ttl=timedelta(hours=1))) == [1.0, 2.0, 2.0, None]


def test_nanoseconds_count():
    rows = history(("a", 1, 1, 1.0)).with_columns(
        pl.col("event_timestamp").dt.cast_time_unit("ns") + pl.duration(nanoseconds=2)
    )
    rows = rows.drop("created_timestamp")
    instant = pl.Series([at(1)]).dt.cast_time_unit("ns")
    events = pl.DataFrame({"key": ["a"] * 3, "at": pl.concat([instant.dt.offset_by(f"{n}ns") for n in (1, 2, 3)])})
    assert values(events, view_of(rows)) == [None, 1.0, 1.0]


def test_times_nanoseconds_cannot_say_are_still_before_and_after():
    years = [1, 1000, 1600, 2300, 2500, 3000, 9999]
    ages = [datetime(year, 1, 1, tzinfo=UTC) for year in years]
    rows = pl.DataFrame({"key": ["a"] * 7, "event_timestamp": ages, "value": [float(year) for year in years]})
    asked = pl.DataFrame({"key": ["a"], "at": pl.Series([at(0)], dtype=pl.Datetime("ns", "UTC"))})
    assert values(asked, view_of(rows)) == [1600.0]
    assert values(pl.DataFrame({"key": ["a"] * 7, "at": ages}), view_of(rows, ttl=timedelta.max)) == years


def test_the_hour_that_daylight_saving_repeats_is_two_hours():
    berlin = ZoneInfo("Europe/Berlin")
    summer, winter = datetime(2026, 10, 25, 2, 30, tzinfo=berlin), datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin)
    rows = pl.DataFrame(
        {"key": ["a", "a"], "event_timestamp": [one.astimezone(UTC) for one in (summer, winter)], "value": [1.0, 2.0]}
    ).with_columns(pl.col("event_timestamp").dt.convert_time_zone("Europe/Berlin"))
    asked = [datetime(2026, 10, 25, hour, minute, tzinfo=UTC) for hour, minute in ((0, 29), (0, 45), (1, 29), (1, 30))]
    events = pl.DataFrame({"key": ["a"] * 4, "at": pl.Series(asked).dt.convert_time_zone("Europe/Berlin")})
    assert values(events, view_of(rows)) == [None, 1.0, 1.0, 2.0]


def test_event_times_may_be_iso_texts_or_dates():
    rows = history(("a", 0, 0, 1.0), ("a", 24, 24, 2.0))
    texts = ["2026-01-01", "2026-01-01T23:59:59.999999", "2026-01-02T00:00:00Z", "2026-01-01T22:30:00-01:30"]
    events = pl.DataFrame({"key": ["a"] * 4, "at": texts})
    joined = join_as_of(events, [view_of(rows)], event_time="at")
    assert joined.rows() == [("a", text, value) for text, value in zip(texts, [1.0, 1.0, 2.0, 2.0], strict=True)]
    days = pl.DataFrame({"key": ["a"] * 2, "at": [date(2026, 1, 1), date(2026, 1, 2)]})
    assert values(days, view_of(rows)) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([at(0), None, at(1), None], "event time 'at' is null in rows 1, 3"),
        (["2026-01-01", "soon", "2026-01-01", "2026-13-01"], "is no time in rows 1, 3 (counted from 0): 'soon'"),
        ([1, 2, 3, 4], "event time 'at' is Int64, not a time"),
    ],
)
def test_event_times_that_are_none_are_refused_with_their_rows(times, said):
    with pytest.raises(InvalidData) as refused:
        values(pl.DataFrame({"key": ["a"] * 4, "at": times}), view_of(history()))
    assert said in refused.value.message
    assert refused.value.remedy


def test_missing_columns_are_named_with_what_they_are_for():
    with pytest.raises(InvalidData, match=r"lacks 'when' \(event_time\), 'key' \(join key 'key' of feature view 'v'\)"):
        join_as_of(pl.DataFrame({"at": [at(0)]}), [view_of(history())], event_time="when")


def test_calls_that_make_no_sense_say_what_to_do():
    events, view = asking(("a", 1)), view_of(history())
    for wrong, said in [
        (lambda: join_as_of(events.lazy(), [view], event_time="at"), "LazyFrame, not a Polars frame"),
        (lambda: join_as_of(events, [view], event_time="at", as_of="now"), "as_of='now' is unknown"),
        (lambda: join_as_of(events, [view], event_time="at", memory_limit_bytes=0), "memory_limit_bytes is 0"),
        (lambda: join_as_of(events, ["v"], event_time="at"), "'v' cannot be joined"),
        (lambda: join_as_of(events, [view_of(history(), schema=[])], event_time="at"), "lists no features"),
        (lambda: join_as_of(events, [view.with_join_key_map({"kye": "key"})], event_time="at"), "no join key 'kye'"),
    ]:
        with pytest.raises(InvalidInput) as refused:
            wrong()
        assert said in refused.value.message
        assert refused.value.remedy


def test_a_source_whose_values_do_not_fit_the_schema_is_named():
    rows = history(("a", 1, 1, 1.0)).with_columns(value=pl.lit("much"))
    with pytest.raises(InvalidData, match="'value' of source"):
        values(asking(("a", 1)), view_of(rows))


def test_features_of_every_type_come_back_as_they_are():
    row = {
        "text": "é",
        "raw": b"\x00\xff",
        "yes": True,
        "number": 2**62,
        "when": at(5),
        "many": [1.5, None],
        "none": [],
    }
    types = [String, Bytes, Bool, Int64, UnixTimestamp, Array(Float64), Array(String)]
    schema = [Field(name=name, dtype=dtype) for name, dtype in zip(row, types, strict=True)]
    view = view_of(pl.DataFrame([{"key": "a", "event_timestamp": at(0), **row}]), schema=schema)
    joined = join_as_of(asking(("a", 1), ("b", 1)), [view], event_time="at").select(pl.exclude("key", "at"))
    assert joined.rows() == [tuple(row.values()), (None,) * len(row)]
    assert joined.dtypes == [one.dtype.polars() for one in schema]


def test_empty_frames_on_either_side_give_the_same_columns():
    full = join_as_of(asking(("a", 1)), [view_of(history(("a", 1, 1, 1.0)))], event_time="at")
    for events in (full.select("key", "at").clear(), pl.DataFrame({"key": [], "at": []})):
        joined = join_as_of(events, [view_of(history(("a", 1, 1, 1.0)))], event_time="at")
        assert joined.height == 0
        assert joined.schema["v__value"] == pl.Float64
    empty = [
        view_of(history()),
        view_of(
            pl.DataFrame(
                {"key": [], **{name: [] for name in SCHEMA if name != "key"}},
                schema_overrides={"event_timestamp": TIME, "created_timestamp": TIME},
            )
        ),
    ]
    for view in empty:
        assert values(asking(("a", 1)), view) == [None]


def random_history(rows: int, seed: int, key: pl.DataType | None = None) -> pl.DataFrame:
    """Many ties, late rows and nulls; entities and hours few enough to meet."""
    random = np.random.default_rng(seed)
    hours = random.integers(0, 200, rows)
    late = random.choice([0, 0, 0, 1, 40], rows)
    frame = pl.DataFrame(
        {"key": random.integers(0, 50, rows), "hour": hours, "late": late, "value": random.random(rows)}
    )
    return frame.select(
        pl.when(pl.col("key") > 0).then("key").cast(key or pl.Int64),
        event_timestamp=pl.lit(START) + pl.duration(hours="hour"),
        created_timestamp=pl.lit(START) + pl.duration(hours=pl.col("hour") + pl.col("late")),
        value=pl.when(pl.col("value") > 0.03).then("value"),
    )


@pytest.mark.parametrize(("key", "as_of"), [(pl.Int64(), "known"), (pl.String(), "known"), (pl.Int64(), "event")])
def test_a_small_memory_limit_and_a_sorted_file_change_nothing(tmp_path, key, as_of):
    """The rows come in one batch or in a dozen, from a frame or a file."""
    rows, random = random_history(12_000, 1, key), np.random.default_rng(2)
    rows.write_parquet(tmp_path / "rows.parquet")
    view = view_of(rows, ttl=timedelta(hours=60))
    write_sorted(view, tmp_path, tmp_path / "sorted.parquet")
    events = pl.DataFrame(
        {"key": random.integers(0, 55, 200), "at": [at(int(h)) for h in random.integers(0, 260, 200)]}
    )
    events = events.cast({"key": key})
    once = values(events, view, as_of=as_of)
    plain = {key: group.to_dicts() for (key,), group in rows.group_by("key", maintain_order=True)}
    best = [
        newest(plain.get(key, []), {"key": key}, time, ttl=view.ttl, as_of=as_of) for key, time in events.iter_rows()
    ]
    assert once == [row and row["value"] for row in best]
    assert values(events, view, as_of=as_of, memory_limit_bytes=1) == once
    for name in ("rows.parquet", "sorted.parquet"):
        filed = FeatureView(name="v", entities=[KEY], schema=[VALUE], source=FileSource(path=name), ttl=view.ttl)
        assert values(events, filed, as_of=as_of, folder=tmp_path) == once
        assert values(events, filed, as_of=as_of, folder=tmp_path, memory_limit_bytes=1) == once


@pytest.mark.parametrize("kind", [pl.Int64(), pl.String(), pl.Int128(), pl.Float64(), pl.Datetime("ns")])
@pytest.mark.parametrize("composite", [False, True])
def test_what_is_cut_into_ranges_of_keys_is_joined_as_a_whole(kind, composite, tmp_path, monkeypatch):
    """Some rows a range and no key that a scan looks for by name: the same as uncut, and as the definition says."""
    rows, random = random_history(3_000, 5), np.random.default_rng(6)
    rows = rows.with_columns(other=pl.int_range(pl.len()) % 3)
    asked = {"key": random.integers(0, 55, 300), "other": random.integers(0, 3, 300)}
    events = pl.DataFrame(asked | {"at": [at(int(h)) for h in random.integers(0, 260, 300)]})
    events = events.with_columns(pl.when(pl.col("key") != 7).then("key").alias("key"))
    rows, events = (one.with_columns(key=pl.col("key").cast(pl.Int64).cast(kind)) for one in (rows, events))
    keys = ["key", "other"] if composite else ["key"]
    entities = [Entity(name=key) for key in keys]
    window = timedelta(hours=9)
    sums = [Aggregation(column="value", function=one, time_window=window) for one in ("count", "max")]
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=500)
    for source in (FrameSource(name="frame", function=lambda: rows), FileSource(path="rows.parquet")):
        view = FeatureView(name="v", entities=entities, schema=[VALUE], source=source, ttl=timedelta(hours=60))
        summed = FeatureView(name="s", entities=entities, schema=[VALUE], source=source, aggregations=sums)
        whole = join_as_of(events, [view, summed], event_time="at", folder=tmp_path)
        with monkeypatch.context() as few:
            few.setattr("noria.features.join.LEAST_ROWS", 20)
            few.setattr("noria.features.keys._MOST_SOUGHT", 0)
            cut = join_as_of(events, [view, summed], event_time="at", folder=tmp_path, memory_limit_bytes=1)
        assert_frame_equal(cut, whole)
    rows, events = (one.with_columns(pl.col("key").cast(pl.Int64)) for one in (rows, events))  # Python has no ns
    plain = {key: group.to_dicts() for key, group in rows.group_by(*keys, maintain_order=True)}
    best = [
        newest(plain.get(tuple(one[key] for key in keys), []), {key: one[key] for key in keys}, one["at"], ttl=view.ttl)
        for one in events.iter_rows(named=True)
    ]
    assert whole["v__value"].to_list() == [row and row["value"] for row in best]


keys_and_costs = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 9)), st.integers(1, 5)), max_size=40)


@given(keys_and_costs, st.integers(1, 30))
def test_parts_hold_whole_keys_every_row_once_and_no_more_than_they_may_cost(listed, most):
    keys, costs = pl.Series([key for key, _ in listed], dtype=pl.Int64), [cost for _, cost in listed]
    parts = by_key(keys, np.array(costs, np.int64), most)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(listed)))
    held = [{keys[int(place)] for place in part} for part in parts]
    assert sum(map(len, held)) == keys.n_unique()
    for part, its_keys in zip(parts, held, strict=True):
        assert len(its_keys) <= 1 or sum(costs[place] for place in part) <= most
    together = put_together(parts, [pl.DataFrame({"place": part}) for part in parts])
    assert together["place"].to_list() == list(range(len(listed)))


def test_rows_that_later_batches_beat_are_forgotten_and_the_last_stay():
    """A thousand rows a batch, with newer ones for most entities in each, but for those that cease one by one."""
    random = np.random.default_rng(4)
    keys = random.integers(np.arange(12_000) // 30, 400)
    rows = pl.DataFrame({"key": keys, "value": np.arange(12_000.0)})
    rows = rows.with_columns(event_timestamp=pl.lit(START) + pl.duration(seconds=pl.col("value").cast(pl.Int64)))
    events = pl.DataFrame({"key": range(400), "at": [at(5)] * 400})
    last = dict(rows.select("key", "value").iter_rows())
    assert values(events, view_of(rows), memory_limit_bytes=1) == [last.get(key) for key in range(400)]


@pytest.mark.parametrize("key", [pl.Int64(), pl.String()])
def test_more_entities_than_a_scan_can_look_for_get_their_own_values(key):
    """And still none for a null, nor for an entity of the source that nobody asked for."""
    keys = pl.Series([*range(-5, 25_000), None]).cast(key)
    rows = pl.DataFrame(
        {"key": keys, "event_timestamp": [at(0)] * len(keys), "value": pl.arange(len(keys), eager=True)}
    )
    asked = [*range(0, 24_000), 10**6, None]
    events = pl.DataFrame({"key": pl.Series(asked).cast(key), "at": [at(1)] * len(asked)})
    for source in (rows, rows.sample(fraction=1, shuffle=True, seed=1)):
        assert values(events, view_of(source)) == [*range(5, 24_005), None, None]


def spoil(path: Path, row_group: int, column: str) -> None:
    """Overwrite the values of one column chunk of a Parquet file."""
    group = pq.read_metadata(path).row_group(row_group)
    [chunk] = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == column]
    start = min(one for one in (chunk.dictionary_page_offset, chunk.data_page_offset) if one)
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


def hourly(folder: Path, **definition: object) -> FeatureView:
    """Four row groups of 250 hours each, one key a group; ``unused`` is a column of the file."""
    rows = pl.DataFrame({"key": [i // 250 for i in range(1000)], "event_timestamp": [at(i) for i in range(1000)]})
    rows = rows.with_columns(value=pl.int_range(1000).cast(pl.Float64), unused=pl.int_range(1000))
    rows.write_parquet(folder / "rows.parquet", row_group_size=250, compression="uncompressed")
    schema = [VALUE, Field(name="unused", dtype=Int64)]
    return FeatureView(name="v", schema=schema, source=FileSource(path="rows.parquet"), **definition)  # type: ignore[arg-type]


def test_only_wanted_features_and_times_that_matter_are_read(tmp_path):
    view = hourly(tmp_path, ttl=timedelta(days=1))
    for group, column in [(2, "unused"), (0, "value"), (1, "value"), (3, "value")]:
        spoil(tmp_path / "rows.parquet", group, column)
    joined = join_as_of(pl.DataFrame({"at": [at(600)]}), [view[["value"]]], event_time="at", folder=tmp_path)
    assert joined["v__value"].to_list() == [600.0]
    for hour, wanted in [(600, view), (260, view[["value"]]), (760, view[["value"]])]:
        with pytest.raises(InvalidData, match="cannot be read"):
            join_as_of(pl.DataFrame({"at": [at(hour)]}), [wanted], event_time="at", folder=tmp_path)


def test_a_sorted_file_is_read_only_where_its_entities_are(tmp_path):
    view = hourly(tmp_path, entities=[KEY])
    for group in (0, 1):
        spoil(tmp_path / "rows.parquet", group, "value")
    events = pl.DataFrame({"key": [2], "at": [at(2000)]})
    assert values(events, view[["value"]], folder=tmp_path) == [749.0]
    with pytest.raises(InvalidData, match="cannot be read"):
        values(events.with_columns(key=pl.lit(1)), view[["value"]], folder=tmp_path)


def test_a_sorted_file_may_replace_its_own_source(tmp_path):
    rows = random_history(1000, 3)
    rows.write_parquet(tmp_path / "rows.parquet")
    source = FileSource(path="rows.parquet")
    view = FeatureView(name="v", entities=[KEY], schema=[VALUE], source=source)
    write_sorted(view, tmp_path, tmp_path / "rows.parquet")
    stored = pl.read_parquet(tmp_path / "rows.parquet")
    expected = rows.sort("key", "event_timestamp", "created_timestamp", maintain_order=True)
    assert_frame_equal(stored, expected.select(stored.columns))
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_view_that_cannot_be_sorted_leaves_no_file(tmp_path):
    view = view_of(history(("a", 1, 1, 1.0)).with_columns(value=pl.lit("much")))
    for path in (tmp_path / "sorted.parquet", tmp_path / "nowhere" / "sorted.parquet"):
        with pytest.raises(InvalidData, match="'value' of source") as refused:
            write_sorted(view, tmp_path, path)
        assert "Declare Field" in refused.value.remedy
    assert not list(tmp_path.iterdir())


feature_rows = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 50), st.integers(0, 80), st.floats(0, 1000)), max_size=25
)


@settings(max_examples=30)
@given(feature_rows, st.lists(st.integers(0, 90), min_size=1, max_size=4).map(sorted))
def test_online_lookups_agree_with_the_join(tmp_path_factory, rows, times):
    view = view_of(history(*rows), ttl=timedelta(hours=20))
    online = OnlineFeatures(open_keyvalue("", tmp_path_factory.mktemp("online")))
    loaded, since = view.load(), None
    for hours in times:
        online.materialize(view, visible_between(loaded, since, at(hours)))
        since = at(hours)
        millis = round(since.timestamp() * 1000)
        found = [online.vector([ViewSpec.of(view)], {"key": key}, millis)[0] for key in KEYS]
        assert found == values(asking(*((key, hours) for key in KEYS)), view)
