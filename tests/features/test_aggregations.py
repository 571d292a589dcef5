"""Windowed aggregations against a plain reading of their definition, of the past and online."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidConfig, InvalidData, InvalidInput
from noria.features import Entity, FeatureView, Field, windows
from noria.features.aggregations import Aggregation
from noria.features.definitions import content_hash
from noria.features.tails import KEPT_LONGER, Event, TailSpec, by_entity, read, update
from noria.features.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from noria.features.windows import aggregate_as_of

START = datetime(2026, 1, 1, tzinfo=UTC)
FUNCTIONS = ["count", "count_distinct", "sum", "mean", "min", "max", "last_2"]
COLUMNS = {"amount": Float64, "units": Int64, "shop": String}
Row = tuple[str, int, int, float | None, int | None, str | None]

amounts = st.one_of(
    st.none(), st.sampled_from([0.1, -0.3, 1e16, -1e16, math.nan, math.inf, -0.0]), st.floats(-1e300, 1e300, width=64)
)
rows_of_events = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 40),
        st.one_of(st.just(0), st.integers(0, 30)),
        amounts,
        st.one_of(st.none(), st.integers(-5, 5), st.just(2**55)),
        st.one_of(st.none(), st.sampled_from(["x", "y", "é"])),
    ),
    max_size=30,
)
requests = st.lists(st.tuples(st.sampled_from(["a", "b", "unknown", None]), st.integers(-5, 80)), max_size=8)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    instants = pl.Datetime("us", "UTC")
    schema = {"key": pl.String, "event_timestamp": instants, "created_timestamp": instants}
    listed = [(key, at(event), at(event + lag), *values) for key, event, lag, *values in rows]
    return pl.DataFrame(listed, schema=schema | {name: one.polars() for name, one in COLUMNS.items()}, orient="row")


def view_of(aggregations: Sequence[Aggregation], rows: Sequence[Row] = (), **schema: Any) -> FeatureView:
    fields = [Field(name=name, dtype=dtype) for name, dtype in (schema or COLUMNS).items()]
    return FeatureView(
        name="v",
        entities=[Entity(name="key")],
        source=lambda: frame_of(rows),
        schema=fields,
        aggregations=aggregations,
    )


EVERY = [
    Aggregation(column, function, timedelta(hours=hours))
    for column in COLUMNS
    for function in FUNCTIONS
    for hours in ((6, 24) if column == "amount" else (24,))
    if column != "shop" or function not in ("sum", "mean")
]


def expected(one: Aggregation, rows: Sequence[Row], key: str | None, moment: float, known: bool = True) -> object:
    """The definition, read out loud."""
    hours, place = one.time_window / timedelta(hours=1), 3 + list(COLUMNS).index(one.column)
    held = [
        (event, event + lag, order, row[place])
        for order, row in enumerate(rows)
        for (event, lag) in [row[1:3]]
        if row[0] == key and moment - hours < event <= moment and (event + lag <= moment or not known)
    ]
    values = [value for *_, value in sorted(held, key=lambda row: row[:3]) if value is not None]
    if one.function == "count":
        return len(values)
    if one.function == "count_distinct":
        return len({"NaN" if value != value else value for value in values})
    if not values or one.last:
        return values[-one.last :] or None
    return summary(one.function, values)


def summary(function: str, values: Sequence[Any]) -> object:
    if any(value != value for value in values):
        return math.nan
    if function in ("min", "max"):
        return {"min": min, "max": max}[function](values)
    infinite = [value for value in values if abs(value) == math.inf]
    total = sum(infinite) if infinite else sum(map(Fraction, values))
    if function == "mean":
        return float(total / len(values))
    return int(total) if isinstance(values[0], int) else float(total)


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if not isinstance(wanted, float):
        return type(found) is type(wanted) and bool(found == wanted)
    return (found != found and wanted != wanted) or math.isclose(found, wanted, rel_tol=1e-9)


def computed(view: FeatureView, asked: Sequence[tuple[str | None, float]], **how: Any) -> list[dict[str, object]]:
    schema = {"key": pl.String, "at": pl.Datetime("us", "UTC")}
    entities = pl.DataFrame([(key, at(moment)) for key, moment in asked], schema=schema, orient="row")
    return aggregate_as_of(entities, view, view.load(), event_time="at", **how).to_dicts()


@settings(max_examples=40)
@given(rows_of_events, requests, st.booleans(), st.sampled_from([1, 5, 4_000_000]))
def test_every_function_gives_what_its_definition_says_at_each_rows_own_time(
    rows: list[Row], asked: list[tuple[str | None, int]], known: bool, together: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_PAIRS", together)  # in how many parts late events are looked at changes nothing
        found = computed(view_of(EVERY, rows), asked, as_of="known" if known else "event")
    assert len(found) == len(asked)
    for (key, moment), features in zip(asked, found, strict=True):
        for one in EVERY:
            wanted = expected(one, rows, key, moment, known)
            assert same(features[one.name], wanted), (one, key, moment, features[one.name], wanted)


@settings(max_examples=40)
@given(rows_of_events, st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["a", "b"])), max_size=8))
def test_reads_between_pushes_equal_the_past_computed_later(rows: list[Row], reads: list[tuple[int, str]]) -> None:
    view = view_of(EVERY, rows)
    spec, states = TailSpec.of(view), dict[object, bytes]()
    arrivals = sorted(rows, key=lambda row: row[1] + row[2])
    asked: list[tuple[str, float]] = []
    online: list[dict[str, object]] = []
    for place, row in enumerate([*arrivals, None]):
        for key in [key for position, key in reads if min(position, len(arrivals)) == place]:
            moment = arrivals[place][1] + arrivals[place][2] - 0.01 if row else 75.0
            asked.append((key, moment))
            online.append(read(states.get((key,)), spec, at(moment)))
        if row is not None:
            for entity, events in by_entity(view, view_of([], [row]).load()):
                states[entity] = update(states.get(entity), events, spec, now=at(row[1] + row[2]))
    for found, past in zip(online, computed(view_of(EVERY, arrivals), asked), strict=True):
        for name, value in past.items():
            assert same(found[name], value), (name, found[name], value)


@given(st.permutations(range(12)))
def test_the_order_of_arrival_changes_no_feature(order: list[int]) -> None:
    view = view_of(EVERY)
    spec, now = TailSpec.of(view), at(24)
    events = [
        Event(happened, happened + place, [place / 7, place, "xyz"[place % 3]])
        for place in range(12)
        for happened in [round(at(place // 2 + 1).timestamp()) * 10**9]
    ]
    state = None
    for place in order:
        state = update(state, [events[place]], spec, now=now)
    assert read(state, spec, now) == read(update(None, events, spec, now=now), spec, now)


def test_the_window_leaves_out_its_start_and_holds_its_end() -> None:
    one = Aggregation("units", "sum", timedelta(hours=1))
    view = view_of([one], [("a", 10, 0, None, 1, None), ("a", 11, 0, None, 10, None)])
    sums = [found["sum_units_3600s"] for found in computed(view, [("a", 10), ("a", 10.999), ("a", 11), ("a", 12)])]
    assert sums == [1, 1, 10, None]


def test_nanoseconds_decide_where_the_data_has_them() -> None:
    moment = pl.Series([1_000_000_000_000_000_500]).cast(pl.Datetime("ns", "UTC"))
    events = pl.DataFrame({"event_timestamp": moment, "created_timestamp": moment, "key": ["a"]})
    view = view_of([Aggregation(function="count", time_window=timedelta(microseconds=1))])
    times = pl.Series([1_000_000_000_000_000_499, 1_000_000_000_000_000_500, 1_000_000_000_000_001_500])
    asked = pl.DataFrame({"key": ["a"] * 3, "event_timestamp": times.cast(pl.Datetime("ns", "UTC"))})
    assert aggregate_as_of(asked, view, events).to_series().to_list() == [0, 1, 0]


def test_an_event_without_a_created_time_was_known_when_it_happened_and_keeps_its_place() -> None:
    view = view_of([Aggregation("units", "last_3", timedelta(hours=9))])
    rows = [("a", 1, 0, None, units, None) for units in (1, 2, 3)]
    events = frame_of(rows).with_columns(created_timestamp=pl.when(units=2).then("created_timestamp"))
    entities = pl.DataFrame({"key": ["a"], "event_timestamp": [at(2)]})
    (past,) = aggregate_as_of(entities, view, events).row(0)
    spec, ((_, listed),) = TailSpec.of(view), by_entity(view, events)
    (now,) = read(update(None, listed, spec, now=at(2)), spec, at(2)).values()
    assert past == now == [1, 2, 3]


def test_large_values_outside_a_window_or_cancelling_in_it_do_not_spoil_a_sum() -> None:
    values = [1e300, 0.1, 0.2, 1e16, 1.0, -1e16, -1e300]
    view = view_of(
        [Aggregation("amount", "sum", timedelta(hours=2)), Aggregation("amount", "sum", timedelta(hours=3))],
        [("a", hour, 0, value, None, None) for hour, value in enumerate(values)],
    )
    found = computed(view, [("a", 2), ("a", 5)])
    assert found[0]["sum_amount_7200s"] == 0.1 + 0.2
    assert found[1]["sum_amount_10800s"] == 1.0


def test_sums_past_the_largest_float_come_back_when_the_total_fits() -> None:
    rows: list[Row] = [("a", hour, 0, value, None, None) for hour, value in enumerate([1.7e308, 1.7e308, -1.7e308])]
    view = view_of([Aggregation("amount", "sum", timedelta(hours=9), name="total")], rows)
    spec = TailSpec.of(view)
    [(_, events)] = by_entity(view, view.load())
    assert [found["total"] for found in computed(view, [("a", 1), ("a", 2)])] == [math.inf, 1.7e308]
    assert read(update(None, events, spec, now=at(2)), spec, at(2)) == {"total": 1.7e308}


def test_a_sum_of_integers_is_exact_to_64_bits_and_refused_beyond() -> None:
    one = Aggregation("units", "sum", timedelta(hours=9), name="total")
    fits: list[Row] = [("a", 1, 0, None, 2**62, None), ("a", 2, 3, None, 2**62 - 1, None)]
    assert computed(view_of([one], fits), [("a", 8)])[0]["total"] == 2**63 - 1
    view = view_of([one], [*fits, ("a", 3, 0, None, 1, None)])
    with pytest.raises(InvalidData, match="'total' of feature view 'v' is a sum of integers beyond 64 bits"):
        computed(view, [("a", 8)])
    [(_, events)] = by_entity(view, view.load())
    with pytest.raises(InvalidData, match="beyond 64 bits"):
        read(update(None, events, TailSpec.of(view), now=at(8)), TailSpec.of(view), at(8))


def test_a_mean_of_integers_needs_no_sum_that_fits() -> None:
    one = Aggregation("units", "mean", timedelta(hours=9), name="mean")
    view = view_of([one], [("a", hour, 0, None, 2**63 - 1, None) for hour in range(5)])
    assert computed(view, [("a", 8)])[0]["mean"] == float(2**63 - 1)


def test_features_have_feasts_names_and_types_made_of_their_columns() -> None:
    day = timedelta(days=1)
    aggregations = [Aggregation(column, function, day) for column in ("f", "i", "b") for function in FUNCTIONS]
    aggregations += [
        Aggregation("t", "max", day),
        Aggregation("t", "last_7", day),
        Aggregation("i", "sum", day, None, "n"),
    ]
    view = view_of(
        [*aggregations, Aggregation(function="count", time_window=day)], f=Float32, i=Int32, b=Bool, t=UnixTimestamp
    )
    types = {one.name: one.dtype for one in view.features}
    assert [types[f"{function}_i_86400s"] for function in FUNCTIONS] == [
        Int64, Int64, Int64, Float64, Int32, Int32, Array(Int32)
    ]  # fmt: skip
    assert (types["sum_f_86400s"], types["min_f_86400s"], types["sum_b_86400s"]) == (Float64, Float32, Int64)
    assert (types["max_t_86400s"], types["last_7_t_86400s"]) == (UnixTimestamp, Array(UnixTimestamp))
    assert (types["n"], types["count_86400s"]) == (Int64, Int64)


@pytest.mark.parametrize("dtype", [Float32, Int32, Bool, UnixTimestamp, String])
def test_values_of_every_type_come_back_as_declared(dtype: Any) -> None:
    value = {"Float32": 0.5, "Int32": 3, "Bool": True, "UnixTimestamp": START, "String": "é"}[dtype.name]
    functions = [
        one for one in FUNCTIONS if dtype.name not in ("String", "UnixTimestamp") or one not in ("sum", "mean")
    ]
    aggregations = [Aggregation("value", one, timedelta(days=1), name=one) for one in functions]
    stamps = {"event_timestamp": [at(1), at(2)], "created_timestamp": [at(1), None], "key": [1, 1]}
    frame = pl.DataFrame({**stamps, "value": pl.Series([value, None], dtype=dtype.polars())})
    view = FeatureView(
        name="v", entities=[Entity(name="key")], source=lambda: frame, schema=[Field(name="value", dtype=dtype)],
        aggregations=aggregations,
    )  # fmt: skip
    found = aggregate_as_of(
        pl.DataFrame({"key": pl.Series([1], dtype=pl.Int32), "at": [at(3)]}), view, view.load(), event_time="at"
    )
    assert found.schema == {one.name: one.dtype.polars() for one in view.features}
    [(entity, events)] = by_entity(view, view.load())
    assert entity == (1,)
    assert read(update(None, events, TailSpec.of(view), now=at(3)), TailSpec.of(view), at(3)) == found.to_dicts()[0]


def test_a_view_without_entities_has_one_series_and_keys_match_across_kinds_of_text() -> None:
    count = Aggregation(function="count", time_window=timedelta(days=9), name="count")
    times = {"event_timestamp": [at(1), at(2)], "created_timestamp": [at(1), at(2)]}
    view = FeatureView(name="all", source=lambda: pl.DataFrame({**times}), aggregations=[count])
    asked = pl.DataFrame({"key": pl.Series(["a", None], dtype=pl.Categorical), "event_timestamp": [at(3), at(1)]})
    assert aggregate_as_of(asked, view, view.load())["count"].to_list() == [2, 1]
    keyed = view_of([count], [("a", 1, 0, None, None, None), ("b", 1, 0, None, None, None)])
    assert aggregate_as_of(asked, keyed, keyed.load())["count"].to_list() == [1, 0]


def test_rows_that_cannot_be_computed_for_are_told() -> None:
    view = view_of([Aggregation(function="count", time_window=timedelta(days=9))], [("a", 1, 0, None, None, None)])
    events = view.load()
    with pytest.raises(InvalidInput, match="lack key"):
        aggregate_as_of(pl.DataFrame({"event_timestamp": [at(1)]}), view, events)
    with pytest.raises(InvalidInput, match="row 1 has no 'event_timestamp'"):
        aggregate_as_of(pl.DataFrame({"key": ["a", "a"], "event_timestamp": [at(1), None]}), view, events)
    with pytest.raises(InvalidData, match="join key 'key' of feature view 'v' is String in its events, Int64"):
        aggregate_as_of(pl.DataFrame({"key": [1], "event_timestamp": [at(1)]}), view, events)
    empty = aggregate_as_of(pl.DataFrame({"key": ["a"], "event_timestamp": [at(1)]}).clear(), view, events)
    assert empty.shape == (0, 1)


def test_a_tail_holds_no_more_than_the_longest_window_and_says_so_when_asked_for_more() -> None:
    view = view_of([Aggregation("units", "sum", timedelta(hours=2), name="total")])
    spec, state, sizes = TailSpec.of(view), None, []
    for hour in range(200):
        event = Event(round(at(hour).timestamp()) * 10**9, 0, [1.0, 1, "x"][1:2])
        state = update(state, [event], spec, now=at(hour))
        sizes.append(len(state))
    assert state is not None
    assert sizes[-1] == sizes[10]
    assert read(state, spec, at(199)) == {"total": 2}
    assert read(state, spec, at(199) - KEPT_LONGER) == {"total": 2}
    with pytest.raises(InvalidInput, match="events of its windows are gone"):
        read(state, spec, at(150))
    assert read(state, spec, at(300)) == {"total": None}
    assert read(None, spec, at(300)) == {"total": None}


def test_a_tail_outlives_a_change_of_its_views_columns() -> None:
    day = timedelta(days=1)
    before = TailSpec.of(view_of([Aggregation("units", "sum", day, name="units")]))
    after = TailSpec.of(
        view_of([Aggregation("amount", "sum", day, name="amount"), Aggregation("units", "sum", day, name="units")])
    )
    moment = round(at(1).timestamp()) * 10**9
    state = update(None, [Event(moment, moment, [3])], before, now=at(1))
    assert read(state, after, at(2)) == {"amount": None, "units": 3}
    assert read(update(state, [Event(moment, moment, [0.5, 4])], after, now=at(2)), after, at(2)) == {
        "amount": 0.5,
        "units": 7,
    }


def test_a_view_with_aggregations_reads_its_events_and_says_all_of_itself() -> None:
    view = view_of([Aggregation("units", "sum", timedelta(hours=1))], [("a", 1, 0, 0.5, 7, "x")])
    assert view.load().columns == ["key", "event_timestamp", "created_timestamp", "units"]
    assert view.feature_names == ("v__sum_units_3600s",)
    changes = [
        Aggregation("units", "sum", timedelta(hours=2)),
        Aggregation("units", "max", timedelta(hours=1)),
        Aggregation("units", "sum", timedelta(hours=1), name="other"),
    ]
    assert len({content_hash(view), *(content_hash(view_of([one])) for one in changes)}) == 4


@pytest.mark.parametrize(
    ("aggregation", "message"),
    [
        (lambda: Aggregation("units", "median", timedelta(hours=1)), "has the function 'median'"),
        (lambda: Aggregation("units", "last_0", timedelta(hours=1)), "has the function 'last_0'"),
        (lambda: Aggregation("units", "sum"), "has no time_window"),
        (lambda: Aggregation("units", "sum", None), "has no time_window"),  # type: ignore[arg-type]
        (lambda: Aggregation("", "sum", timedelta(hours=1)), "needs a column"),
        (lambda: view_of([Aggregation("shop", "sum", timedelta(hours=1))]), "takes sum of 'shop', which is String"),
        (lambda: view_of([Aggregation("none", "sum", timedelta(hours=1))]), "'none', which its schema does not list"),
        (lambda: view_of(["sum"]), "holds 'sum'"),  # type: ignore[list-item]
        (lambda: view_of([Aggregation("units", "sum", timedelta(hours=1))] * 2), "needs distinct fields"),
        (lambda: view_of([Aggregation("units", "sum", timedelta(hours=1), name="key")]), "named 'key', as a join key"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused(aggregation: Any, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        aggregation()


def test_a_ttl_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="looks back 2:00:00, but its events are too old after 1:00:00"):
        FeatureView(
            name="v",
            source=lambda: None,
            ttl=timedelta(hours=1),
            aggregations=[Aggregation(function="count", time_window=timedelta(hours=2))],
        )
