"""Rows as they are sent, of numpy's, pandas' and polars' values too: none of the three is imported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from noria.errors import InvalidInput

Rows = Iterable[Mapping[str, Any]]


def encoded(document: object) -> bytes:
    """As JSON. Raises InvalidInput for what JSON has nothing for, and for infinite numbers."""
    try:
        text = _encoder.encode(document)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"the row is no JSON: {error}", remedy="Send numbers, texts, booleans, times and None."
        ) from None
    if b"null" in text:  # what infinity is written as, which would be taken for a value that is missing
        for place in _infinities(document):
            raise InvalidInput(f"{place} is infinite", remedy="Send a finite number, or None where there is none.")
    return text


def features_of(row: Any) -> dict[str, Any] | list[Any]:
    """By name where they have names, as in a row of a pandas frame, else in their order."""
    if hasattr(row, "to_dict"):
        named: dict[Any, Any] = row.to_dict()
        return named if all(isinstance(name, str) for name in named) else list(row)
    return dict(row) if isinstance(row, Mapping) else list(row)


def listed(rows: Any) -> list[Mapping[str, Any]]:
    """One request a row; each row of a data frame is its features by name. Raises InvalidInput for what is no rows."""
    if (records := _records(rows)) is not None:
        return [{"features": record} for record in records]
    if isinstance(rows, Mapping | str) or not isinstance(rows, Iterable):
        raise _no_row("what is sent", rows)
    found = list(rows)
    for number, row in enumerate(found, start=1):
        if not isinstance(row, Mapping):
            raise _no_row(f"row {number}", row)
    return found


def _no_row(what: str, value: object) -> InvalidInput:
    return InvalidInput(
        f"{what} is of {type(value).__name__}, and rows are a list of mappings, or a pandas or polars DataFrame",
        remedy='Send [{"features": {...}}, ...].',
    )


def _records(rows: Any) -> list[dict[str, Any]] | None:
    """The rows of a data frame, None where it is none."""
    if hasattr(rows, "to_dicts"):  # polars
        return rows.to_dicts()  # type: ignore[no-any-return]
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        return rows.to_dict("records")  # type: ignore[no-any-return]
    return None


def _infinities(value: Any, place: str = "") -> Iterator[str]:
    """Where infinite numbers are."""
    if isinstance(value, float):
        if math.isinf(value):
            yield place or "the number"
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _infinities(one, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value, start=1):
            yield from _infinities(one, f"{place}[{number}]")
    elif getattr(getattr(value, "dtype", None), "kind", "") in ("f", "O"):
        yield from _infinities(value.tolist(), place)


def _plain(value: Any) -> object:
    """What JSON has in place of a value of numpy's or pandas'. Raises TypeError where it has nothing."""
    if isinstance(value, datetime):  # pandas' Timestamp, or its NaT, which equals nothing
        return value.isoformat() if value == value else None
    if type(value).__name__ == "NAType":  # pandas' NA
        return None
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M" and value.shape == ():
        return None if (text := str(value)) == "NaT" else text
    if kind and kind in "biufUO":
        return value.tolist()
    raise TypeError(f"it holds {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
