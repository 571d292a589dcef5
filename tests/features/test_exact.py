"""No value is cut off on its way into another type: it stays what it is, or its column and row are told."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from noria.clock import ReplayClock
from noria.errors import InvalidData, NoriaError
from noria.features import Entity, FeatureStore, FeatureView, Field, FileSource, PushMode, PushSource
from noria.features.exact import Inexact, exact
from noria.features.times import instants_of_texts
from noria.features.types import Array, Bool, FeatureType, Float32, Int32, Int64, Json, Map

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
THEN = NOW - timedelta(hours=1)
FITTING: list[tuple[pl.Series, pl.DataType, list[Any]]] = [
    (pl.Series([1.0, None]), pl.Int64(), [1, None]),
    (pl.Series([Decimal("2.00")]), pl.Int64(), [2]),
    (pl.Series([1, 0, None]), pl.Boolean(), [True, False, None]),
    (pl.Series([True]), pl.Int64(), [1]),
    (pl.Series(["7", "-1"]), pl.Int64(), [7, -1]),
    (pl.Series([1.0, 2.0]), pl.String(), ["1", "2"]),
    (pl.Series([math.inf, math.nan]), pl.Float32(), [math.inf, math.nan]),
    (pl.Series([2**53 + 1]), pl.Float64(), [float(2**53)]),
    (pl.Series([[1.0, None], None, []]), pl.List(pl.Int64), [[1, None], None, []]),
    (pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), pl.List(pl.Float32), [[1.0, 2.0]]),
    (pl.Series([None]), pl.Int64(), [None]),
]
LOST: list[tuple[pl.Series, pl.DataType, int, str]] = [
    (pl.Series([1.0, None, 2.5]), pl.Int64(), 2, "2.5"),
    (pl.Series([math.nan]), pl.Int64(), 0, "nan"),
    (pl.Series([1, 2**63], dtype=pl.UInt64), pl.Int64(), 1, str(2**63)),
    (pl.Series([2**70], dtype=pl.Int128), pl.Int64(), 0, str(2**70)),
    (pl.Series([1.1, 1e300]), pl.Float32(), 1, "1e+300"),
    (pl.Series([Decimal("1.90")]), pl.Int64(), 0, "Decimal('1.90')"),
    (pl.Series([5]), pl.Boolean(), 0, "5"),
    (pl.Series(["1", "x"]), pl.Int64(), 1, "'x'"),
    (pl.Series(["01"]), pl.Int64(), 0, "'01'"),
    (pl.Series([[1.0], None, [2.0, 2.5]]), pl.List(pl.Int64), 2, "2.5"),
]


@pytest.mark.parametrize(("values", "dtype", "wanted"), FITTING)
def test_a_value_that_both_types_have_stays_what_it_is(values, dtype, wanted):
    assert repr(exact(values, dtype).to_list()) == repr(wanted)


@pytest.mark.parametrize(("values", "dtype", "row", "shown"), LOST)
def test_a_value_that_only_one_type_has_is_told(values, dtype, row, shown):
    with pytest.raises(Inexact) as told:
        exact(values.alias("v"), dtype)
    assert told.value.parts == ("v", row, shown, str(dtype))


def test_texts_of_times_are_read_in_every_way_iso_8601_writes_them():
    texts = ["2026-03-01", None, "2026-03-01T02:00:00+02:00", "20260301", "2026-03-01 00:00:00.000001"]
    day = datetime(2026, 3, 1, tzinfo=UTC)
    assert instants_of_texts(pl.Series(texts)).to_list() == [day, None, day, day, day.replace(microsecond=1)]
    for wrong in ("2026-13-45", "01/02/2026", "soon"):
        with pytest.raises(Inexact) as told:
            instants_of_texts(pl.Series("at", ["2026-03-01", wrong]))
        assert told.value.parts == ("at", 1, repr(wrong), "time")


@pytest.fixture
def store(tmp_path: Path):
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    opened = FeatureStore(tmp_path, clock=ReplayClock(NOW))
    yield opened
    opened.close()


def table(values: Any, keys: Any = None, at: Any = THEN) -> pl.DataFrame:
    series = pl.Series("v", values, strict=False)
    given = pl.Series("id", keys if keys is not None else range(len(series)))
    return pl.DataFrame([given, pl.Series("ts", at if isinstance(at, list) else [at] * len(series)), series])


def apply(store: FeatureStore, frame: pl.DataFrame, dtype: FeatureType, folder: Path) -> None:
    frame.write_parquet(folder / "rows.parquet")
    source = PushSource(name="pushed", batch_source=FileSource(path="rows.parquet", timestamp_field="ts"))
    schema = [Field(name="v", dtype=dtype)]
    store.apply(FeatureView(name="view", entities=[Entity(name="id")], schema=schema, source=source))


@pytest.mark.parametrize(
    ("values", "dtype", "shown"),
    [
        ([1.0, 2.0, 1.5], Int64, r"1\.5"),
        ([1.0, 2.0, 1.5], Int32, r"1\.5"),
        ([1, 2, 2**40], Int32, str(2**40)),
        ([1.0, 2.0, math.nan], Int64, "nan"),
        ([0.0, 1.0, 1e300], Float32, r"1e\+300"),
        ([0, 1, 5], Bool, "5"),
        ([[1.0], None, [1.5]], Array(Int64), r"1\.5"),
    ],
)
def test_a_source_and_a_push_that_would_lose_a_value_are_refused_by_column_and_row(
    store, tmp_path, values, dtype, shown
):
    apply(store, table(values), dtype, tmp_path)
    asked = pl.DataFrame({"id": [0, 1, 2], "event_timestamp": [NOW] * 3})
    message = rf"column 'v' .* holds {shown}, which is no .*row 2"
    with pytest.raises(InvalidData, match=message):
        store.get_historical_features(asked, ["view:v"]).to_polars()
    with pytest.raises(InvalidData, match=message):
        store.materialize(None, NOW)
    for mode in PushMode:
        with pytest.raises(InvalidData, match=message):
            store.push("pushed", table(values), to=mode)
    assert store.get_online_features(["view:v"], {"id": [0]}).to_dict()["v"] == [None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table([1], at=["2026-13-45"]), "'2026-13-45'"),
        (table([1, 2], at=[THEN, None]), r"row 1 .*no 'ts'"),
        (table([1, 2], keys=[1, None]), r"row 1 .*no 'id'"),
        (table([1], keys=["x"]), "'id' is declared Int64, and row 0"),
        (table([1], keys=[2.5]), "'id' is declared Int64, and row 0"),
        (table([2**63], keys=[1]), str(2**63)),
        (table([1], keys=[2**63]), str(2**63)),
        (table(pl.Series([2**70], dtype=pl.Int128)), str(2**70)),
    ],
)
def test_a_push_of_nonsense_writes_nothing(store, tmp_path, rows, message):
    apply(store, table([0]), Int64, tmp_path)
    for mode in PushMode:
        with pytest.raises(NoriaError, match=message):
            store.push("pushed", rows, to=mode)
    assert pl.read_parquet(tmp_path / "rows.parquet").height == 1
    assert store.get_online_features(["view:v"], {"id": [0, 1, 2]}).to_dict()["v"] == [None] * 3


@pytest.mark.parametrize("key", [1, "1", 1.0])
def test_a_key_nobody_declared_has_the_type_of_the_source_however_it_is_pushed_and_asked(store, tmp_path, key):
    apply(store, table([10], keys=[1]), Int64, tmp_path)
    assert {name: str(dtype) for name, dtype in store.get_feature_view("view").key_types().items()} == {"id": "Int64"}
    store.materialize(None, NOW)
    store.push("pushed", table([11], keys=[key], at=NOW), to=PushMode.ONLINE_AND_OFFLINE)
    for asked in (1, "1", 1.0):
        assert store.get_online_features(["view:v"], {"id": [asked]}).to_dict()["v"] == [11]
    assert pl.read_parquet(tmp_path / "rows.parquet")["id"].to_list() == [1, 1]


def test_a_text_that_is_no_json_is_refused_and_one_in_a_source_spoils_no_answer(store, tmp_path):
    for dtype, good, wanted in ((Json, "[1]", [1]), (Map, '{"a": 1}', {"a": 1})):
        apply(store, table([good, "{nope"]), dtype, tmp_path)
        store.materialize(None, NOW)
        found = store.get_online_features(["view:v"], {"id": [0, 1]}).to_dict()["v"]
        assert found == [wanted, "{nope" if dtype == Json else None]
        with pytest.raises(InvalidData, match=r"'v' of view 'view' holds '\{nope' in row 1"):
            store.push("pushed", table([good, "{nope"], at=NOW))
