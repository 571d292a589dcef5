"""Rows given as named columns: ordered and typed as the model takes them, or as requests to look the rest up for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.serving.inputs import PredictionRequest, ill_typed_feature, is_nested, json_text
from noria.serving.live import Arm

Columns = Mapping[str, Sequence[Any]]


def arrays_of(arm: Arm, columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.object_] | None]:
    """Numbers and texts of rows given by column; columns the model does not take are left out, optional ones null.

    Raises InvalidInput for one that is missing, ragged, or of the wrong kind.
    """
    bundle = arm.served.bundle
    if missing := [name for name in bundle.inputs if name not in columns and name not in bundle.optional]:
        raise InvalidInput(
            f"columns are missing: {', '.join(missing)}", remedy=f"The model takes: {', '.join(bundle.inputs)}."
        )
    rows = _rows(columns)
    given = dict.fromkeys(bundle.optional, [None] * rows) | dict(columns)
    numbers = [_numbers(name, given[name]) for name in bundle.number_names]
    texts = [bundle.inputs[place] for place in bundle.string_places]
    strings = [_jsons(given[name]) if is_nested(bundle, name) else _strings(name, given[name]) for name in texts]
    matrix = np.stack(numbers, axis=1) if numbers else np.empty((rows, 0))
    return matrix, np.stack(strings, axis=1) if strings else None


def requests_of(arm: Arm, columns: Columns) -> list[PredictionRequest] | None:
    """The rows as requests by entity key, when the columns hold the keys and not what is looked up by them."""
    bundle = arm.served.bundle
    keys = bundle.entity_keys
    if not (keys or bundle.computed) or set(bundle.inputs) <= set(columns) or not {*keys, *bundle.sent} <= set(columns):
        return None
    return [
        PredictionRequest(
            entities={key: columns[key][row] for key in keys},
            features={name: _plain(name, columns[name][row]) for name in bundle.sent},
        )
        for row in range(_rows(columns))
    ]


def columns_of_rows(arm: Arm, rows: Sequence[Sequence[Any]]) -> Columns:
    """Rows of values in the model's order, as columns. Raises InvalidInput for a row of another width."""
    names = arm.served.bundle.inputs
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            found = f"{len(row)} values" if isinstance(row, list) else "no list"
            raise InvalidInput(
                f"row {place} has {found}, and the model takes {len(names)}",
                remedy=f"Send, in this order: {', '.join(names)}; or name the columns.",
            )
    return dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))


def columns_of_records(records: Sequence[Any]) -> Columns:
    """Rows given as objects, as columns; a name that a row lacks is null there. Raises InvalidInput."""
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            raise InvalidInput(f"row {place} is no object", remedy='Send rows such as {"column": value}.')
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def _rows(columns: Columns) -> int:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise InvalidInput("the columns differ in length", remedy="Send one value a row in every column.")
    return lengths.pop() if lengths else 0


_PLAIN = frozenset((float, int, bool, type(None)))


def _numbers(name: str, column: Sequence[Any]) -> NDArray[np.float64]:
    if not _PLAIN.issuperset(map(type, column)):
        raise ill_typed_feature(name, next(one for one in column if type(one) not in _PLAIN), "a number", "columns")
    try:
        return np.array(column, dtype=np.float64)
    except OverflowError:
        raise InvalidInput(f"column {name!r} has a value too large for a double", remedy="Send less.") from None


def _strings(name: str, column: Sequence[Any]) -> NDArray[np.object_]:
    if bad := [value for value in column if not isinstance(value, str | None)]:
        raise ill_typed_feature(name, bad[0], "a text", "columns")
    return np.array(column, dtype=object)


def _jsons(column: Sequence[Any]) -> NDArray[np.object_]:
    """What is nested, as texts of JSON."""
    return np.array([json_text(value) for value in column], dtype=object)


def _plain(name: str, value: Any) -> Any:
    try:
        return float(value) if value.__class__ is int else value
    except OverflowError:
        raise InvalidInput(f"column {name!r} has a value too large for a double", remedy="Send less.") from None
