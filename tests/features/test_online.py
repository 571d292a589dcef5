"""Online features: exact round trips, keys that never collide, statuses, rows that outlive their view's schema."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidData, InvalidInput, NotFound
from noria.features import Entity, FeatureView, Field, OnlineFeatures, ValueType, ViewSpec
from noria.features.entity_keys import pack_key, view_prefix
from noria.features.readers import FeatureColumn, Status
from noria.features.types import (
    Array,
    Bool,
    Bytes,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)  # fmt: skip
from noria.store import KeyValueStore, open_keyvalue

AT = datetime(2026, 1, 2, tzinfo=UTC)
MICROS = round(AT.timestamp()) * 1_000_000
MILLIS = MICROS // 1000

instants = st.datetimes(datetime(1800, 1, 1), datetime(2500, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
values_of: dict[FeatureType, st.SearchStrategy[Any]] = {
    Int32: st.integers(-(2**31), 2**31 - 1),
    Int64: st.integers(-(2**63), 2**63 - 1),
    Float32: st.floats(width=32),
    Float64: st.floats(),
    String: st.text(),
    Bytes: st.binary(),
    Bool: st.booleans(),
    UnixTimestamp: instants,
}
types = st.sampled_from([*values_of, *map(Array, values_of)])


@pytest.fixture
def store(tmp_path: Path) -> KeyValueStore:
    return open_keyvalue("", tmp_path)


def view_of(
    columns: dict[str, Sequence[Any]],
    schema: Sequence[Field],
    keys: Sequence[Entity] = (Entity(name="id"),),
    at: datetime | Sequence[datetime] = AT,
    **more: Any,
) -> FeatureView:
    known = {one.name: one.dtype.polars() for one in schema}
    frame = pl.DataFrame(columns, schema_overrides=known)
    times = pl.Series(at if isinstance(at, Sequence) else [at] * frame.height, dtype=pl.Datetime("us", "UTC"))
    frame = frame.with_columns(event_timestamp=times)
    return FeatureView(name="v", entities=list(keys), schema=schema, source=lambda: frame, **more)


def kept(store: KeyValueStore, view: FeatureView) -> OnlineFeatures:
    online = OnlineFeatures(store)
    online.materialize(view, view.load())
    return online


def same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> KeyValueStore:
    return open_keyvalue("", tmp_path_factory.mktemp("online"))


@settings(max_examples=100)
@given(st.data())
def test_values_of_every_type_come_back_exactly(shared, data):
    schema = [Field(name=f"f{n}", dtype=data.draw(types)) for n in range(data.draw(st.integers(1, 4)))]
    row = [data.draw(st.none() | _values(field.dtype)) for field in schema]
    view = view_of({"id": [1], **{field.name: [value] for field, value in zip(schema, row, strict=True)}}, schema)
    (found,) = kept(shared, view).lookup((ViewSpec.of(view),), {"id": [1]}, MILLIS)
    for field, value in zip(schema, row, strict=True):
        column = found[field.name]
        assert same(column.values[0], value), (field, column.values[0], value)
        assert column.statuses == [Status.NULL_VALUE if value is None else Status.PRESENT]
        assert column.event_timestamps == [MICROS]


def _values(kind: FeatureType) -> st.SearchStrategy[Any]:
    if kind.inner is None:
        return values_of[kind]
    return st.lists(st.none() | values_of[kind.inner], max_size=3)


parts = st.lists(st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(), max_size=3)


@settings(max_examples=300)
@given(st.text(min_size=1), parts, st.text(min_size=1), parts)
def test_two_entities_never_share_a_key(view, one, other_view, other):
    keys = [pack_key(view_prefix(view), one), pack_key(view_prefix(other_view), other)]
    assert (keys[0] == keys[1]) == ((view, one) == (other_view, other))
    assert keys[0].startswith(view_prefix(other_view)) == (view == other_view)
    assert all(len(key) <= 511 for key in keys)


@pytest.mark.parametrize("pair", [([1], ["1"]), (["a", "bc"], ["ab", "c"]), (["a\x1fb"], ["a", "b"]), ([True], [1])])
def test_entities_that_look_alike_are_told_apart(pair):
    assert pack_key(view_prefix("v"), pair[0]) != pack_key(view_prefix("v"), pair[1])


def test_very_long_names_and_keys_are_told_apart():
    keys = {pack_key(view_prefix("v" * n), ["k" * m]) for n in (300, 301) for m in (600, 601)}
    assert len(keys) == 4 and max(map(len, keys)) <= 511


def typed(kind: ValueType) -> Entity:
    return Entity(name="id", value_type=kind)


NUMBERS = {"id": [1, 7], "x": [0.5, None]}
X = Field(name="x", dtype=Float64)


@pytest.mark.parametrize("key", [7, "7", "+7", "07", 7.0])
def test_a_whole_number_is_found_however_it_is_sent_when_the_key_is_declared_int64(store, key):
    view = view_of(NUMBERS, [X], [typed(ValueType.INT64)])
    (found,) = kept(store, view).lookup((ViewSpec.of(view),), {"id": [key]}, MILLIS)
    assert found["x"] == FeatureColumn([None], [Status.NULL_VALUE], [MICROS])


@pytest.mark.parametrize("key", ["UA", 1.5, True, None, 2**64, b"7", [7]])
def test_what_is_no_whole_number_is_refused_for_a_key_declared_int64(store, key):
    view = view_of(NUMBERS, [X], [typed(ValueType.INT64)])
    online = kept(store, view)
    for ask in (
        lambda: online.lookup((ViewSpec.of(view),), {"id": [1, key]}, MILLIS),
        lambda: online.vector([ViewSpec.of(view)], {"id": key}, MILLIS),
    ):
        with pytest.raises(InvalidInput, match=r"entity key .*(not Int64|beyond 64 bits)"):
            ask()


def test_a_number_is_a_text_when_the_key_is_declared_string(store):
    view = view_of({"id": ["7", "07"], "x": [1.0, 2.0]}, [X], [typed(ValueType.STRING)])
    (found,) = kept(store, view).lookup((ViewSpec.of(view),), {"id": ["7", 7, "07"]}, MILLIS)
    assert found["x"].values == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("stored", [["1", "7"], [1, 7], [1.0, 7.0]])
def test_a_key_whose_kind_nobody_declared_is_found_as_number_or_text(store, stored):
    view = view_of({"id": stored, "x": [1.0, 2.0]}, [X], on_missing="null")
    online, spec = kept(store, view), ViewSpec.of(view)
    (found,) = online.lookup((spec,), {"id": ["7", 7, "07", 8, -1]}, MILLIS)
    assert found["x"].values == [2.0, 2.0, None, None, None]
    assert online.vector([spec], {"id": "7"}, MILLIS) == online.vector([spec], {"id": 7}, MILLIS) == [2.0]


def test_keys_from_numpy_are_found_and_half_a_character_is_refused(store):
    view = view_of({"id": ["a"], "x": [1.0]}, [X])
    online, spec = kept(store, view), ViewSpec.of(view)
    assert online.lookup((spec,), {"id": np.array(["a"])}, MILLIS)[0]["x"].values == [1.0]
    numbers = view_of(NUMBERS, [X], [typed(ValueType.INT64)])
    assert kept(store, numbers).vector([ViewSpec.of(numbers)], {"id": np.int64(1)}, MILLIS) == [0.5]
    with pytest.raises(InvalidInput, match="no Unicode text"):
        online.vector([spec], {"id": "\ud800"}, MILLIS)


def test_an_entity_of_several_keys_is_found_by_all_of_them(store):
    keys = [Entity(name="route", join_keys=["origin", "dest"]), typed(ValueType.INT64)]
    columns = {"origin": ["a", "ab"], "dest": ["bc", "c"], "id": [1, 1], "x": [1.0, 2.0]}
    view = view_of(columns, [X], keys)
    (found,) = kept(store, view).lookup(
        (ViewSpec.of(view),), {"origin": ["a", "ab", "a"], "dest": ["bc", "c", "c"], "id": [1, 1, 1]}, MILLIS
    )
    assert found["x"].values == [1.0, 2.0, None]


def test_keys_of_instants_bytes_and_truths_are_found(store):
    for kind, stored in ((ValueType.UNIX_TIMESTAMP, AT), (ValueType.BYTES, b"\x00"), (ValueType.BOOL, True)):
        view = view_of({"id": [stored], "x": [1.0]}, [X], [typed(kind)])
        assert kept(store, view).vector([ViewSpec.of(view)], {"id": stored}, MILLIS) == [1.0]


def test_a_view_without_keys_has_one_row_for_every_entity(store):
    everywhere = view_of({"x": [3.0]}, [X], [])
    by_id = msgspec.structs.replace(ViewSpec.of(view_of(NUMBERS, [X])), name="other")
    online = kept(store, everywhere)
    found = online.lookup((ViewSpec.of(everywhere), by_id), {"id": [1, 2]}, MILLIS)
    assert found[0]["x"].values == [3.0, 3.0] and found[1]["x"].values == [None, None]


def test_statuses_say_why_a_value_is_missing(store):
    rows = {"id": [1, 2, 3], "x": [1.0, None, math.nan]}
    view = view_of(rows, [X], at=[AT, AT, AT - timedelta(hours=2)], ttl=timedelta(hours=1))
    (found,) = kept(store, view).lookup((ViewSpec.of(view),), {"id": [1, 2, 3, 4]}, MILLIS)
    assert found["x"].values == [1.0, None, None, None]
    names = [status.name for status in found["x"].statuses]
    assert names == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert found["x"].event_timestamps == [MICROS, MICROS, MICROS - 7_200_000_000, None]


def test_a_value_is_too_old_only_past_its_ttl(store):
    view = view_of(NUMBERS, [X], ttl=timedelta(seconds=1))
    online, asked = kept(store, view), ((ViewSpec.of(view),), {"id": [1]})
    assert online.lookup(*asked, MILLIS + 1000)[0]["x"].statuses == [Status.PRESENT]
    assert online.lookup(*asked, MILLIS + 1001)[0]["x"].statuses == [Status.OUTSIDE_MAX_AGE]


def test_columns_of_different_lengths_are_refused(store):
    spec = ViewSpec.of(view_of(NUMBERS, [X]))
    other = msgspec.structs.replace(spec, join_keys=("other",))
    online = OnlineFeatures(store)
    with pytest.raises(InvalidInput, match="different lengths: 1, 2"):
        online.lookup((spec, other), {"id": [1], "other": [1, 2]}, MILLIS)
    with pytest.raises(InvalidInput, match=r"'other' is missing.*\n.*Send other with every entity"):
        online.lookup((spec, other), {"id": [1]}, MILLIS)
    assert online.lookup((spec,), {"id": []}, MILLIS)[0]["x"].values == []


A, B, C = (Field(name=name, dtype=Float64) for name in "abc")


def test_rows_of_an_older_schema_are_read_by_name_and_a_new_feature_is_not_found(store):
    old = view_of({"id": [1], "a": [1.0], "b": [2.0]}, [A, B])
    kept(store, old)
    new = view_of({"id": [2], "c": [30.0], "b": [20.0]}, [C, B])
    online, spec = kept(store, new), ViewSpec.of(new)
    (found,) = online.lookup((spec,), {"id": [1, 2]}, MILLIS)
    assert found["c"].values == [None, 30.0] and found["b"].values == [2.0, 20.0]
    assert found["c"].statuses == [Status.NOT_FOUND, Status.PRESENT]
    (before,) = online.lookup((ViewSpec.of(old),), {"id": [1, 2]}, MILLIS)
    assert before["a"].values == [1.0, None] and before["b"].values == [2.0, 20.0]


def test_a_feature_that_changed_its_type_is_widened_or_not_found(store):
    kept(
        store,
        view_of(
            {"id": [1], "a": [2**40], "b": ["text"]}, [Field(name="a", dtype=Int64), Field(name="b", dtype=String)]
        ),
    )
    spec = ViewSpec.of(view_of({"id": [1], "a": [1.0], "b": [2.0]}, [A, B]))
    (found,) = OnlineFeatures(store).lookup((spec,), {"id": [1]}, MILLIS)
    assert same(found["a"].values, [float(2**40)])
    assert found["b"] == FeatureColumn([None], [Status.NOT_FOUND], [MICROS])


def test_some_features_of_a_view_are_read_in_the_order_asked(store):
    view = view_of({"id": [1], "a": [1.0], "b": [2.0], "c": [3.0]}, [A, B, C])
    online = kept(store, view)
    assert online.vector([ViewSpec.of(view, ["c", "a"])], {"id": 1}, MILLIS) == [3.0, 1.0]


def test_a_model_is_refused_a_row_without_a_field_it_takes_unless_missing_is_null(store):
    kept(store, view_of({"id": [1], "a": [1.0]}, [A]))
    wanted = {
        missing: view_of({"id": [1], "a": [1.0], "b": [1.0]}, [A, B], on_missing=missing)
        for missing in ("error", "null")
    }
    online = OnlineFeatures(store)
    with pytest.raises(InvalidData, match=r"stored without b.*\n.*Materialize the view"):
        online.vector([ViewSpec.of(wanted["error"])], {"id": 1}, MILLIS)
    assert online.vector([ViewSpec.of(wanted["null"])], {"id": 1}, MILLIS) == [1.0, None]


def test_a_model_gets_an_error_or_nulls_for_an_entity_nobody_knows(store):
    view = view_of(NUMBERS, [X])
    online, spec = kept(store, view), ViewSpec.of(view)
    with pytest.raises(NotFound, match=r"no features of view 'v' for \{'id': 99\}"):
        online.vector([spec], {"id": 99}, MILLIS)
    lenient = msgspec.structs.replace(spec, on_missing="null")
    assert online.vector([lenient, spec], {"id": 99} | {"id": 1}, MILLIS) == [0.5, 0.5]
    assert online.vector([lenient], {"id": 99}, MILLIS) == [None]
    with pytest.raises(InvalidInput, match="entity key 'id' is missing"):
        online.vector([spec], {"ident": 1}, MILLIS)


def test_a_spec_of_a_bundle_written_before_types_were_kept_reads_and_serves(store):
    old = b'{"name":"v","join_keys":["id"],"fields":["x"],"ttl_millis":null,"on_missing":"error"}'
    spec = msgspec.json.decode(old, type=ViewSpec)
    assert kept(store, view_of(NUMBERS, [X])).vector([spec], {"id": "1"}, MILLIS) == [0.5]


def test_a_late_row_never_undoes_a_newer_one(store):
    newer, older = (
        view_of({"id": [1], "x": [2.0]}, [X]),
        view_of({"id": [1], "x": [1.0]}, [X], at=AT - timedelta(days=1)),
    )
    online = OnlineFeatures(store)
    assert [online.materialize(view, view.load()) for view in (newer, older, newer)] == [1, 0, 1]
    assert online.vector([ViewSpec.of(newer)], {"id": 1}, MILLIS) == [2.0]


def test_rows_without_a_key_are_left_out(store):
    view = view_of({"id": [None, "a"], "x": [1.0, 2.0]}, [X])
    assert OnlineFeatures(store).materialize(view, view.load()) == 1


def test_a_dropped_view_is_gone_and_others_stay(store):
    view = view_of(NUMBERS, [X])
    online, other = kept(store, view), ViewSpec.of(view)
    longer = FeatureView(name="v2", entities=view.entities, schema=view.schema, source=view.source)
    online.materialize(longer, longer.load())
    assert online.drop("v") == 2
    assert online.lookup((other,), {"id": [1]}, MILLIS)[0]["x"].statuses == [Status.NOT_FOUND]
    assert online.vector([ViewSpec.of(longer)], {"id": 1}, MILLIS) == [0.5]


def test_keys_that_are_not_of_the_declared_kind_are_refused_when_written(store):
    view = view_of({"id": ["UA"], "x": [1.0]}, [X], [typed(ValueType.INT64)])
    with pytest.raises(InvalidData, match="join key 'id' is declared Int64"):
        OnlineFeatures(store).materialize(view, view.load())
