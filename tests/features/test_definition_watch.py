"""A gateway notices rows that were written under another definition than its model was trained on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest

from noria.errors import Unavailable
from noria.features import Aggregation, Entity, FeatureView, Field, OnlineFeatures, ViewSpec
from noria.features import definition_watch as watching
from noria.features.definition_watch import DefinitionWatch
from noria.features.types import Float64
from noria.store import open_keyvalue

AT = datetime(2026, 1, 2, tzinfo=UTC)
MILLIS = round(AT.timestamp() * 1000)
ROWS = pl.DataFrame({"id": [1, 2], "x": [1.0, 2.0], "event_timestamp": [AT, AT]})


def view(days: int, *, windows: bool = False) -> FeatureView:
    how = (
        {"aggregations": [Aggregation(column="x", function="sum", time_window=timedelta(days=days), name="x_sum")]}
        if windows
        else {"ttl": timedelta(days=days)}
    )
    schema = [Field(name="x", dtype=Float64)]
    return FeatureView(name="v", entities=[Entity(name="id")], schema=schema, source=lambda: ROWS, **how)


@pytest.mark.parametrize("windows", [False, True])
def test_rows_of_another_definition_are_met_counted_and_by_policy_refused(windows, tmp_path, monkeypatch):
    store, counted = open_keyvalue("", tmp_path), list[str]()
    trained, changed = view(7, windows=windows), view(8, windows=windows)
    spec = ViewSpec.of(trained)
    asked = [({"id": 1}, MILLIS), ({"id": 2}, MILLIS)]
    OnlineFeatures(store).materialize(trained, trained.load())

    watch, strict = DefinitionWatch("warn", counted.append), DefinitionWatch("refuse")
    warning, refusing = OnlineFeatures(store, watch), OnlineFeatures(store, strict)
    assert warning.vectors([spec], asked) == refusing.vectors([spec], asked) == [[1.0], [2.0]]
    assert watch.fault([spec]) is None and counted == []

    OnlineFeatures(store).materialize(changed, changed.load().head(1))
    assert warning.vectors([spec], asked)[1] == [2.0]
    assert counted == ["v"]
    fault = watch.fault([spec])
    assert fault is not None
    for digest in (trained.definition, changed.definition):
        assert digest[:12] in fault.message
    assert "'v'" in fault.message and watch.fault([ViewSpec.of(changed)]) is None
    refused, answered = refusing.vectors([spec], asked)
    assert isinstance(refused, Unavailable) and "Train and promote" in refused.remedy and answered == [2.0]
    assert OnlineFeatures(store, strict).vectors([ViewSpec.of(changed)], asked[:1])[0] == ([2.0] if windows else [1.0])

    monkeypatch.setattr(watching, "_REMEMBERED_SECONDS", 0)
    assert watch.fault([spec]) is None


def test_specs_and_rows_that_know_no_definition_are_no_reason_to_complain(tmp_path):
    store, counted = open_keyvalue("", tmp_path), list[str]()
    OnlineFeatures(store).materialize(view(7), view(7).load())
    unknown = msgspec.structs.replace(ViewSpec.of(view(7)), definition="")
    watched = OnlineFeatures(store, DefinitionWatch("refuse", counted.append))
    assert watched.vectors([unknown], [({"id": 1}, MILLIS)]) == [[1.0]] and counted == []
