"""The point-in-time join against a plain, row-by-row reading of its definition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.features import Entity, FeatureView, OnlineFeatures, ViewSpec, join_as_of
from noria.features.online import visible_between
from noria.store import KeyValueStore

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ["a", "b"]

feature_rows = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 50), st.integers(0, 30), st.integers(0, 1000)), max_size=25
)
events = st.lists(st.tuples(st.sampled_from([*KEYS, "unknown"]), st.integers(0, 90)), min_size=1, max_size=15)


def at(hours: int) -> datetime:
    return START + timedelta(hours=hours)


def view_of(rows: list[tuple[str, int, int, int]], ttl: timedelta | None = None) -> FeatureView:
    frame = pl.DataFrame(
        {
            "key": [r[0] for r in rows],
            "event_timestamp": [at(r[1]) for r in rows],
            "created_timestamp": [at(r[1] + r[2]) for r in rows],
            "value": [float(r[3]) for r in rows],
        },
        schema={
            "key": pl.String,
            "event_timestamp": pl.Datetime("ms", "UTC"),
            "created_timestamp": pl.Datetime("ms", "UTC"),
            "value": pl.Float64,
        },
    )
    return FeatureView("v", Entity("key", ["key"]), ["value"], lambda: frame, ttl=ttl, on_missing="null")


def expected(rows: list[tuple[str, int, int, int]], key: str, hours: int, ttl: int | None) -> set[float | None]:
    """Every answer the definition allows: rows that tie on both timestamps may stand for each other."""
    known = [(r[1], r[1] + r[2], float(r[3])) for r in rows if r[0] == key and r[1] + r[2] <= hours]
    if not known:
        return {None}
    best = max(row[:2] for row in known)
    if ttl is not None and hours - best[0] > ttl:
        return {None}
    return {row[2] for row in known if row[:2] == best}


@settings(deadline=None, max_examples=150)
@given(feature_rows, events, st.one_of(st.none(), st.integers(1, 40)))
def test_every_row_gets_what_was_known_at_its_time_and_nothing_later(rows, asked, ttl):
    frame = pl.DataFrame({"key": [e[0] for e in asked], "at": [at(e[1]) for e in asked]})
    view = view_of(rows, None if ttl is None else timedelta(hours=ttl))
    joined = join_as_of(frame, [view], event_time="at")
    assert joined["key"].to_list() == [e[0] for e in asked]
    for value, (key, hours) in zip(joined["v__value"].to_list(), asked, strict=True):
        assert value in expected(rows, key, hours, ttl)


def test_a_planted_leak_stays_out_of_the_training_frame():
    """The outcome itself, planted as a feature that is recorded one hour after it is asked for."""
    asked = pl.DataFrame({"key": ["a"] * 5, "at": [at(h) for h in range(10, 15)], "label": [1.0, 0, 1, 1, 0]})
    leak = asked.select(
        "key", event_timestamp="at", created_timestamp=pl.col("at").dt.offset_by("1h"), value=pl.col("label") + 100
    )
    view = FeatureView("leak", Entity("key", ["key"]), ["value"], lambda: leak)
    joined = join_as_of(asked, [view], event_time="at")
    assert joined["leak__value"].to_list() == [None, 101.0, 100.0, 101.0, 101.0]


@settings(deadline=None, max_examples=60)
@given(feature_rows, st.lists(st.integers(0, 90), min_size=1, max_size=4).map(sorted))
def test_online_lookups_agree_with_the_join(tmp_path_factory, rows, times):
    view = view_of(rows, timedelta(hours=20))
    online = OnlineFeatures(KeyValueStore(tmp_path_factory.mktemp("online") / "features.db"))
    loaded, since = view.load(), None
    for hours in times:
        online.materialize(view, visible_between(loaded, since, at(hours)))
        since = at(hours)
        for key in KEYS:
            found = online.lookup(ViewSpec.of(view), {"key": key}, round(at(hours).timestamp() * 1000))
            assert found[0] in expected(rows, key, hours, 20)
