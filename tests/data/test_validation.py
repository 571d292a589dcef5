"""Rows that break their contract are refused and named."""

from __future__ import annotations

import math
from datetime import date, datetime

import polars as pl
import pytest

from noria.data.observations import Observations
from noria.data.validation import validate
from noria.errors import InvalidConfig, InvalidData
from noria.schema import Column

COLUMNS = [
    Column("id", "text"),
    Column("distance", "number", minimum=10, maximum=6000),
    Column("late", "integer", nullable=True, minimum=0, maximum=1),
    Column("origin", "text", one_of=("EWR", "JFK")),
]
GOOD = {"id": ["a", "b", "c"], "distance": [100.0, 200.0, 300.0], "late": [0, 1, None], "origin": ["EWR", "JFK", "EWR"]}


def check(**changes):
    return validate(pl.DataFrame(GOOD | changes, strict=False), COLUMNS, name="flights", key="id")


def test_rows_that_keep_the_contract_come_back_with_its_columns_only():
    assert check(extra=[1, 2, 3]).columns == ["id", "distance", "late", "origin"]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"distance": [1.0, 200.0, 9000.0]}, "column 'distance' is below 10 in 1 row (key id: a)"),
        ({"distance": [1.0, 200.0, 9000.0]}, "column 'distance' is above 6000 in 1 row (key id: c)"),
        ({"distance": [None, math.nan, 50.0]}, "column 'distance' is null in 2 rows (key id: a, b)"),
        ({"distance": [math.inf, 20.0, 50.0]}, "column 'distance' is infinite in 1 row (key id: a)"),
        ({"distance": ["far", "near", "x"]}, "column 'distance' is String, not number"),
        ({"late": [2, 0, 0]}, "column 'late' is above 1 in 1 row (key id: a)"),
        ({"origin": ["EWR", "LGA", "JFK"]}, "column 'origin' is none of EWR, JFK in 1 row (key id: b)"),
        ({"id": ["a", "a", "b"]}, "key 'id' is not unique: 2 rows (key id: a, a)"),
        ({"id": [None, "a", "b"]}, "column 'id' is null in 1 row"),
    ],
)
def test_every_fault_names_its_rows(changes, finding):
    with pytest.raises(InvalidData) as caught:
        check(**changes)
    assert any(finding in detail for detail in caught.value.details), caught.value.details


@pytest.mark.parametrize(
    ("values", "way"),
    [
        ([datetime(2026, 1, 1)], "pl.col('at').dt.replace_time_zone('UTC')"),
        ([date(2026, 1, 1)], "pl.col('at').cast(pl.Datetime).dt.replace_time_zone('UTC')"),
        (["2026-01-01T00:00:00"], "pl.col('at').str.to_datetime(time_zone='UTC')"),
    ],
)
def test_times_without_a_zone_are_told_with_the_expression_that_makes_them_instants(values, way):
    frame, columns = pl.DataFrame({"at": values}), [Column("at", "instant")]
    with pytest.raises(InvalidData) as refused:
        validate(frame, columns, name="orders", key="at")
    assert f"not instant: {way} is" in refused.value.details[0]
    validate(frame.with_columns(at=eval(way)), columns, name="orders", key="at")


@pytest.mark.parametrize(
    ("kind", "roles", "told"),
    [
        ("text", {"label": "y"}, "is the label, and cannot be of kind 'text'"),
        ("text", {"request_columns": ["y"]}, "is sent to the model, and cannot be of kind 'text'"),
        ("number", {"event_time": "y"}, "is a time, and cannot be of kind 'number'"),
    ],
)
def test_a_column_that_cannot_do_its_part_is_told_where_it_is_declared(kind, roles, told):
    columns = [Column("id", "text"), Column("at", "instant"), Column("late", "integer"), Column("y", kind)]
    parts = {"key": "id", "event_time": "at", "label": "late", "label_time": "at", "request_columns": []}
    with pytest.raises(InvalidConfig, match=f"column 'y' of observations 'orders' {told}"):
        Observations(name="orders", source=pl.DataFrame, columns=columns, **parts | roles)
    with pytest.raises(InvalidConfig, match="is of no known kind: 'strng'"):
        Column("y", "strng")


def test_a_missing_column_is_told_with_those_there_are():
    with pytest.raises(InvalidData, match="column 'late' is missing; there are id, distance, origin"):
        validate(pl.DataFrame(GOOD).drop("late"), COLUMNS, name="flights", key="id")


def test_a_range_of_something_that_is_no_number_is_refused_where_it_is_written():
    with pytest.raises(InvalidConfig, match="cannot have a range"):
        Column("name", "text", minimum=3)
