"""On-demand features: one function, the same values for a frame and for a request; its faults told."""

from __future__ import annotations

import importlib.util
import inspect
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidConfig, InvalidData, InvalidInput, MissingExtra
from noria.features import Entity, FeatureService, FeatureView, Field, RequestSource
from noria.features.definitions import content_hash
from noria.features.function_code import dump, load
from noria.features.on_demand import OnDemandFeatureView, OnDemandProjection, on_demand_feature_view
from noria.features.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

TYPES = {
    "number": Float64, "small": Float32, "count": Int64, "short": Int32, "flag": Bool, "name": String, "blob": Bytes,
    "moment": UnixTimestamp, "counts": Array(Int64), "names": Array(String),
}  # fmt: skip
FIELDS = [Field(name=name, dtype=dtype) for name, dtype in TYPES.items()]
STORED = FeatureView(name="stored", entities=[Entity(name="key")], source=lambda: None, schema=FIELDS[:5])
ASKED = RequestSource(name="asked", schema=FIELDS[5:])
OUTPUTS = [*(Field(name=f"same_{name}", dtype=dtype) for name, dtype in TYPES.items()), Field(name="more", dtype=Int64)]

VALUES: Mapping[str, st.SearchStrategy[object]] = {
    "number": st.one_of(st.floats(), st.integers(-5, 5)),
    "small": st.floats(width=32),
    "count": st.one_of(st.integers(-(2**63), 2**63 - 2), st.sampled_from([2**53 + 1, 3.0])),
    "short": st.integers(-(2**31), 2**31 - 1),
    "flag": st.booleans(),
    "name": st.text(max_size=3),
    "blob": st.binary(max_size=3),
    "moment": st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    "counts": st.lists(st.integers(-(2**53), 2**53), max_size=3),
    "names": st.lists(st.text(max_size=2), max_size=3),
}
requests = st.lists(st.fixed_dictionaries({name: st.none() | one for name, one in VALUES.items()}), max_size=6)


def by_pandas(inputs: pd.DataFrame) -> pd.DataFrame:
    outputs = pd.DataFrame({f"same_{name}": inputs[name] for name in TYPES})
    outputs["more"] = inputs["stored__count"].where(~inputs["flag"].isna(), -1)
    return outputs


def by_polars(inputs: pl.DataFrame) -> pl.DataFrame:
    same = [pl.col(name).alias(f"same_{name}") for name in TYPES]
    return inputs.select(*same, more=pl.when(pl.col("flag").is_null()).then(-1).otherwise("stored__count"))


def by_lists(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    pairs = zip(inputs["flag"], inputs["stored__count"], strict=True)
    more = [-1 if flag is None else count for flag, count in pairs]
    return {**{f"same_{name}": inputs[name] for name in TYPES}, "more": more}


def by_values(inputs: dict[str, Any]) -> dict[str, Any]:
    more = -1 if inputs["flag"] is None else inputs["stored__count"]
    return {**{f"same_{name}": inputs[name] for name in TYPES}, "more": more}


MODES: Mapping[str, Any] = {
    "pandas": {"udf": by_pandas, "mode": "pandas"},
    "polars": {"udf": by_polars, "mode": "polars"},
    "python": {"udf": by_lists, "mode": "python"},
    "singleton": {"udf": by_values, "mode": "python", "singleton": True},
}


def exact(values: list[Any]) -> list[str]:
    """Values that can be compared: NaN with NaN, 1 not with 1.0."""
    return [repr(value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value) for value in values]


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25)
@given(rows=requests)
def test_a_frame_and_each_row_alone_give_the_same_values(mode: str, rows: list[dict[str, Any]]) -> None:
    view = OnDemandFeatureView(name="view", sources=[STORED, ASKED], schema=OUTPUTS, **MODES[mode])
    columns = {name: [row[name] for row in rows] for name in TYPES}
    typed = {name: pl.Series(columns[name], dtype=dtype.polars(), strict=False) for name, dtype in TYPES.items()}
    frame = pl.DataFrame({("stored__" if name in STORED.fields else "") + name: one for name, one in typed.items()})

    offline = view.transform_frame(frame)
    together = view.transform_rows(columns)
    alone = [view.transform_rows({name: [row[name]] for name in TYPES}) for row in rows]

    assert offline.schema == {one.name: one.dtype.polars() for one in OUTPUTS}
    for name in offline.columns:
        values = exact(offline[name].to_list())
        assert values == exact(together[name]), name
        assert values == exact([one[name][0] for one in alone]), name
    if mode != "pandas":  # whose null and NaN are one
        assert all(exact(offline[f"same_{name}"].to_list()) == exact(typed[name].to_list()) for name in TYPES)


def test_integers_beyond_floats_survive_pandas_beside_missing_ones() -> None:
    view = OnDemandFeatureView(name="view", sources=[STORED, ASKED], schema=OUTPUTS, **MODES["pandas"])
    row: dict[str, list[Any]] = {name: [None, None] for name in TYPES} | {"count": [2**53 + 1, None]}
    assert view.transform_rows(row)["same_count"] == [2**53 + 1, None]


def defined(function: Callable[[Any], Any], sources: Any = (ASKED,), **how: Any) -> OnDemandFeatureView:
    how = {"mode": "python", "schema": [Field(name="out", dtype=Int64)], **how}
    return OnDemandFeatureView(name="view", sources=sources, udf=function, **how)


ONE = RequestSource(name="one", schema=[Field(name="x", dtype=Int64)])


def view_named(name: str, *fields: str) -> FeatureView:
    return FeatureView(name=name, source=lambda: None, schema=[Field(name=field, dtype=Int64) for field in fields])


def test_inputs_have_full_names_and_plain_ones_where_only_one_has_it() -> None:
    seen: dict[str, Any] = {}

    def look(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        seen.update(inputs)
        return {"out": [0]}

    view = defined(look, [view_named("a", "x", "y"), view_named("b", "y", "z")[["y"]].with_name("other"), ONE])
    view.transform_rows({"a__x": [1], "a__y": [2], "other__y": [3], "x": [4]})
    assert seen == {"a__x": [1], "a__y": [2], "other__y": [3], "x": [4]}
    seen.clear()
    defined(look, [view_named("a", "x")]).transform_frame(pl.DataFrame({"x": [7], "unasked": [1]}))
    assert seen == {"a__x": [7], "x": [7]}


def test_a_plain_column_stands_for_no_feature_that_two_views_have() -> None:
    view = defined(lambda inputs: {"out": inputs["a__y"]}, [view_named("a", "y"), view_named("b", "y")])
    with pytest.raises(InvalidInput, match="feature 'a__y' is missing; on-demand feature view 'view'"):
        view.transform_frame(pl.DataFrame({"y": [1]}))


def test_the_decorator_takes_feasts_words_and_the_functions_name() -> None:
    @on_demand_feature_view(
        sources=[STORED[["number"]], RequestSource(name="r", schema=[Field(name="add", dtype=Int64)])],
        schema=[Field(name="number_plus", dtype=Float64), Field(name="number_twice", dtype=Float64)],
        description="A sum",
        tags={"team": "growth"},
    )
    def transformed(features_df: pd.DataFrame) -> pd.DataFrame:
        features_df["number_plus"] = features_df["number"] + features_df["add"]
        features_df["number_twice"] = features_df["number"] * 2
        return features_df

    assert (transformed.name, transformed.mode, transformed.description) == ("transformed", "pandas", "A sum")
    assert [one.name for one in transformed.requested] == ["add"]
    done = transformed.transform_rows({"stored__number": [1.5, None], "add": [2, 3]})
    assert done == {"number_plus": [3.5, None], "number_twice": [3.0, None]}
    assert transformed.transform_frame(pl.DataFrame({"number": [], "add": []})).shape == (0, 2)


def test_a_service_lists_stored_and_on_demand_features_in_order() -> None:
    view = defined(lambda inputs: inputs, [ONE], schema=[Field(name=name, dtype=Int64) for name in ("p", "q")])
    service = FeatureService(name="s", features=[view[["q"]], STORED[["number"]], view.with_name("again")])
    assert [(one.used_name, list(one.features)) for one in service.features] == [
        ("view", ["q"]), ("stored", ["number"]), ("again", ["p", "q"])
    ]  # fmt: skip
    assert [isinstance(one, OnDemandProjection) for one in service.features] == [True, False, True]
    assert content_hash(service) != content_hash(FeatureService(name="s", features=[view, STORED[["number"]]]))
    with pytest.raises(InvalidConfig, match="has no feature 'r'"):
        view[["r"]]


def failing(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"out": inputs["y"]}


def test_an_error_in_the_function_names_its_line_and_inputs() -> None:
    line = inspect.getsourcelines(failing)[1] + 1
    with pytest.raises(InvalidData) as told:
        defined(failing, [ONE]).transform_rows({"x": [1]})
    assert f"'view' failed at {__file__}:{line}, in failing: KeyError: 'y'" in str(told.value)
    assert "It is given: x." in str(told.value)


@pytest.mark.parametrize(
    ("mode", "function", "message"),
    [
        ("python", lambda _: [1], "gives a list"),
        ("python", lambda _: {"other": [1, 2]}, "gives no 'out'"),
        ("python", lambda _: {"out": 1}, "gives a int for 'out'"),
        ("python", lambda _: {"out": [1]}, "gives 1 values of 'out' for 2 rows"),
        ("python", lambda _: {"out": [1, "2"]}, "gives a wrong 'out': row 1: str '2' is no Int64"),
        ("python", lambda _: {"out": [1.5, 2]}, "gives a wrong 'out': row 0: float 1.5 is no Int64"),
        ("python", lambda _: {"out": [1, 2**63]}, "does not fit Int64"),
        ("pandas", lambda _: {"out": [1, 2]}, "gives a dict"),
        ("pandas", lambda inputs: inputs, "gives no 'out'"),
        ("pandas", lambda inputs: inputs.assign(out=1)[:1], "gives 1 rows for 2"),
        ("pandas", lambda inputs: inputs.assign(out=1)[::-1], "gives its rows in another order"),
        ("pandas", lambda inputs: inputs.assign(out="a"), "gives a wrong 'out': row 0: str 'a' is no Int64"),
        ("pandas", lambda inputs: inputs.assign(out=0.5), "gives a wrong 'out': row 0: float 0.5 is no Int64"),
        ("polars", lambda inputs: inputs.lazy(), "gives a LazyFrame"),
        ("polars", lambda inputs: inputs.rename({"x": "y"}), "gives no 'out'"),
        ("polars", lambda inputs: inputs.select(out=pl.len()), "gives 1 rows for 2"),
        ("polars", lambda inputs: inputs.select(out=pl.lit("a")), "gives 1 rows for 2"),
        ("polars", lambda inputs: inputs.select(out=pl.col("x").cast(pl.String)), "gives a wrong 'out'"),
    ],
)  # fmt: skip
def test_what_a_function_gives_is_checked_both_ways(mode: Any, function: Any, message: str) -> None:
    view = defined(function, [ONE], mode=mode)
    with pytest.raises(InvalidData, match=f"'view' .*{message}"):
        view.transform_frame(pl.DataFrame({"x": [1, 2]}))
    with pytest.raises(InvalidData, match=f"'view' .*{message}"):
        view.transform_rows({"x": [1, 2]})


def test_requests_that_lack_a_value_or_bring_a_wrong_one_are_told() -> None:
    view = defined(lambda inputs: {"out": inputs["x"]}, [ONE, view_named("a", "y")])
    with pytest.raises(InvalidInput, match="request value 'x' of 'one' is missing; on-demand feature view 'view'"):
        view.transform_rows({"y": [1]})
    with pytest.raises(InvalidInput, match="cannot take 'x': row 1: str '2' is no Int64"):
        view.transform_rows({"x": [1, "2"], "y": [1, 1]})
    with pytest.raises(InvalidInput, match=r"cannot take 'x': row 0: float 0\.5 is no Int64"):
        view.transform_frame(pl.DataFrame({"x": [0.5], "y": [1]}))
    with pytest.raises(InvalidInput, match="differ in length: 2 for 'x', 1 for 'y'"):
        view.transform_rows({"x": [1, 2], "y": [1]})
    assert view.transform_rows({"x": [], "y": []}) == {"out": []}


def test_values_of_other_kinds_are_taken_where_nothing_is_lost() -> None:
    fields = [
        Field(name="t", dtype=UnixTimestamp),
        Field(name="f", dtype=Float32),
        Field(name="l", dtype=Array(Float64)),
    ]
    view = OnDemandFeatureView(
        name="view",
        sources=[RequestSource(name="r", schema=fields)],
        schema=fields,
        udf=lambda inputs: inputs,
        mode="python",
    )
    east = datetime(2026, 1, 1, 2, tzinfo=None)
    done = view.transform_rows({"t": ["2026-01-01T02:00:00+01:00", east], "f": [0.1, True], "l": [[1, None], (2.5,)]})
    assert done["t"] == [datetime(2026, 1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 2, tzinfo=UTC)]
    assert done["f"] == [pl.Series([0.1], dtype=pl.Float32)[0], 1.0]
    assert done["l"] == [[1.0, None], [2.5]]
    framed = view.transform_frame(pl.DataFrame({"t": [east], "f": pl.Series([0.1]), "l": [[1]]}))
    assert framed.row(0) == (datetime(2026, 1, 1, 2, tzinfo=UTC), done["f"][0], [1.0])


def test_without_pandas_the_mode_is_told_to_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    view = defined(lambda inputs: inputs.assign(out=1), [ONE], mode="pandas")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="'view' needs pandas"):
        view.transform_rows({"x": [1]})
    assert defined(lambda _: {"out": [1]}, [ONE]).transform_rows({"x": [1]}) == {"out": [1]}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"sources": []}, "has no sources"),
        ({"sources": ["driver"]}, "has the source 'driver'"),
        ({"sources": [STORED, STORED]}, "has two sources named 'stored'"),
        ({"sources": [ONE, RequestSource(name="b", schema=[Field(name="x", dtype=String)])]}, "takes 'x' as Int64"),
        ({"schema": []}, "needs distinct features"),
        ({"mode": "spark"}, "has the mode 'spark'"),
        ({"mode": "pandas", "singleton": True}, "takes single rows in mode 'pandas'"),
        ({"inputs": {}}, r"takes no 'inputs'; write sources=\[...\]"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        defined(failing, **{"sources": [ONE], **how})


PROJECT = """
from noria.features import Field, RequestSource
from noria.features.on_demand import on_demand_feature_view
from noria.features.types import Float64
from rates import taxed
RATE = {rate}
@on_demand_feature_view(
    sources=[RequestSource(name="r", schema=[Field(name="x", dtype=Float64)])],
    schema=[Field(name="price", dtype=Float64)], mode="python", description={description!r},
)
def price(inputs):
    return {{"price": [taxed(x) * RATE {more} for x in inputs["x"]]}}
"""


def project(folder: Path, monkeypatch: pytest.MonkeyPatch, **words: Any) -> OnDemandFeatureView:
    """The view of a project that is written anew, as a new process would import it."""
    words = {"rate": 2, "description": "", "more": "", **words}
    folder.mkdir()
    (folder / "rates.py").write_text("TAX = 0.5\ndef taxed(x):\n    return x * (1 + TAX)\n")
    (folder / "price_views.py").write_text(PROJECT.format(**words))
    monkeypatch.syspath_prepend(str(folder))
    for name in ("rates", "price_views"):
        sys.modules.pop(name, None)
    spec = importlib.util.find_spec("price_views")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "price_views", module)
    spec.loader.exec_module(module)
    found: OnDemandFeatureView = module.price
    return found


def test_a_process_without_the_project_runs_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = project(tmp_path / "project", monkeypatch)
    (tmp_path / "stored").write_bytes(dump(view.transformation))
    script = (
        "from pathlib import Path; from noria.features.function_code import load\n"
        "print(load(Path('stored').read_bytes()).transform_rows({'x': [1.0, 10]}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "{'price': [3.0, 30.0]}", done.stderr
    again = load(dump(view.transformation))
    assert (again.inputs, again.outputs, again.mode) == (view.transformation.inputs, view.schema, "python")


def test_what_cannot_be_stored_or_loaded_is_told() -> None:
    held = threading.Lock()
    with pytest.raises(InvalidData, match="'view' cannot be stored: TypeError: cannot pickle"):
        dump(defined(lambda _: {"out": [held]}, [ONE]).transformation)
    with pytest.raises(InvalidData, match="no stored on-demand feature view"):
        load(b"nothing")
    content = dump(defined(failing, [ONE]).transformation)
    this = sys.version_info
    mark = bytes([this.major, this.minor])
    with pytest.raises(InvalidData, match=f"was stored by Python {this.major}.{this.minor + 1}"):
        load(content.replace(mark, bytes([this.major, this.minor + 1]), 1))


def test_the_hash_follows_what_the_function_says_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project(tmp_path / "a", monkeypatch)
    described = project(tmp_path / "b", monkeypatch, description="Another")
    changed = project(tmp_path / "c", monkeypatch, more="+ 1")
    assert first.udf_string.startswith("def price(inputs):")
    assert content_hash(first) == content_hash(described) != content_hash(changed)
    kept = OnDemandFeatureView(
        name="price", sources=first.sources, schema=first.schema, mode="python",
        udf=load(dump(first.transformation)).function, udf_string=first.udf_string, referred=first.referred,
    )  # fmt: skip
    assert content_hash(kept) == content_hash(first)


def test_a_function_without_text_is_known_by_its_bytecode() -> None:
    def made(body: str) -> OnDemandFeatureView:
        space: dict[str, Any] = {}
        exec(f"def f(inputs):\n    return {{'out': [{body} for x in inputs['x']]}}", space)
        return defined(space["f"], [ONE])

    assert content_hash(made("x + 1")) == content_hash(made("x + 1")) != content_hash(made("x + 2"))
    assert content_hash(made("x in {1, 2}")) != content_hash(made("x in {1, 3}"))
    assert made("x + 1").transform_rows({"x": [1]}) == {"out": [2]}


def test_a_missing_time_or_number_of_pandas_is_null() -> None:
    fields = [Field(name="t", dtype=UnixTimestamp), Field(name="l", dtype=Array(Float64)), Field(name="b", dtype=Bool)]

    def gaps(inputs: pd.DataFrame) -> pd.DataFrame:
        times = pd.Series([pd.NaT, pd.Timestamp("2026-01-01")], dtype=object)
        return pd.DataFrame({"t": times, "l": [None, [1, math.nan]], "b": [pd.NA, True]})

    found = defined(gaps, [ONE], mode="pandas", schema=fields).transform_rows({"x": [1, 2]})
    assert found["t"] == [None, datetime(2026, 1, 1, tzinfo=UTC)]
    assert found["b"] == [None, True]
    assert exact(found["l"]) == ["None", "[1.0, nan]"]
    assert timedelta(0) == found["t"][1].utcoffset()  # type: ignore[attr-defined]
