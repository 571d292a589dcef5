"""What a database answers with, as columns of frames: every value as it is, or its row is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Context, Decimal, Inexact, InvalidOperation
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any
from uuid import UUID

from noria.errors import InvalidData
from noria.serving.batch.parts import Batch, Refusal
from noria.serving.batch.texts import ill_typed

if TYPE_CHECKING:
    import polars as pl

Digits = tuple[int | None, int | None]
"""Precision and scale that a column of exact decimals is declared with; None where it is not."""
_AS_TEXT = frozenset((UUID, IPv4Address, IPv6Address))
_MOST_DIGITS, _INT64_DIGITS = 38, 18
_PLACES = 18
"""Decimal places of a column that is declared without: as many, where the digits before the point leave room."""


def plain(row: Iterable[Any]) -> tuple[Any, ...]:
    """A row's values, what frames know no type of as text."""
    return tuple(str(value) if type(value) in _AS_TEXT or _is_zoned_time(value) else value for value in row)


def _is_zoned_time(value: Any) -> bool:
    """A time of day with a zone: frames would drop the zone."""
    return type(value) is time and value.tzinfo is not None


def read_any_value(driver_connection: Any) -> None:
    """Have psycopg give times that Python has none of (infinity, the year 10000) as texts, for they would end the
    query; and JSON as it is written, for a frame's objects have all the fields of one another."""
    from psycopg import DataError
    from psycopg.adapt import Loader
    from psycopg.pq import Format
    from psycopg.types.string import TextLoader

    def reading(known: type[Any]) -> type[Loader]:
        class AnyTime(Loader):
            def __init__(self, oid: int, context: Any = None) -> None:
                super().__init__(oid, context)
                self._known = known(oid, context)

            def load(self, data: Any) -> Any:
                try:
                    return self._known.load(data)
                except DataError:
                    return bytes(data).decode()

        return AnyTime

    adapters = driver_connection.adapters
    for name in ("date", "timestamp", "timestamptz"):
        oid = adapters.types[name].oid
        adapters.register_loader(oid, reading(adapters.get_loader(oid, Format.TEXT)))
    for name in ("json", "jsonb"):
        adapters.register_loader(name, TextLoader)


def type_of(name: str, values: Sequence[Any], digits: Digits) -> pl.DataType:
    """The type that takes all values of a column; null where there is none. Raises InvalidData where no type does."""
    import polars as pl

    decimals = [value for value in values if isinstance(value, Decimal)]
    if decimals:
        return _decimals(decimals, *digits)
    kinds = {type(value) for value in values}
    if str in kinds and any(issubclass(kind, date) for kind in kinds):  # times that only texts can say
        return pl.String()
    try:
        found = _guessed(name, values).dtype
        return pl.String() if found == pl.Object else found  # which Arrow has none of: it would write addresses
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise InvalidData(
            f"column {name!r} holds values of several kinds: {error}", remedy="Cast the column in a --query."
        ) from None


def batch_of(rows: Sequence[Sequence[Any]], types: Mapping[str, pl.DataType]) -> Batch:
    """Rows in the types of their columns; those with a value that does not fit are refused."""
    import polars as pl

    series: list[pl.Series] = []
    refused: dict[int, Refusal] = {}
    for (name, kind), values in zip(types.items(), zip(*rows, strict=True), strict=True):
        column, bad = _column(name, kind, values)
        series.append(column)
        for place in bad:
            reason = ill_typed(name, values[place], f"a value of the type {kind}, as in the first rows")
            refused.setdefault(place, Refusal(place, reason, {name: values[place]}))
    frame = pl.DataFrame(series) if series else pl.DataFrame(height=len(rows))
    return Batch(frame, [refused[place] for place in sorted(refused)])


def _decimals(values: Sequence[Decimal], precision: int | None, scale: int | None) -> pl.DataType:
    """As declared or, of a column that takes any decimals, as the first ones are; as text where frames are too narrow.

    Floats are none of this: a key of twenty digits would become another one.
    """
    import polars as pl

    if precision is not None and scale is not None and 0 <= scale <= precision <= _MOST_DIGITS:
        return pl.Int64() if not scale and precision <= _INT64_DIGITS else pl.Decimal(precision, scale)
    finite = [value.as_tuple() for value in values if value.is_finite()]
    if not finite:
        return pl.Float64()
    whole = max(len(one.digits) + int(one.exponent) for one in finite)
    places = max(0, *(-int(one.exponent) for one in finite))
    if places:
        places = max(places, min(_PLACES, _MOST_DIGITS - max(whole, 0)))
    return pl.Decimal(_MOST_DIGITS, places) if max(whole, 0) + places <= _MOST_DIGITS else pl.String()


def _column(name: str, kind: pl.DataType, values: Sequence[Any]) -> tuple[pl.Series, list[int]]:
    """A column, and the places of what does not fit, which is null; after a failure of each half, to find them."""
    import polars as pl

    try:
        return _series(name, kind, values), []
    except (pl.exceptions.PolarsError, ArithmeticError, TypeError, ValueError):
        if len(values) == 1:
            return pl.Series(name, [None], dtype=kind), [0]
    half = len(values) // 2
    (first, bad), (second, more) = _column(name, kind, values[:half]), _column(name, kind, values[half:])
    return pl.concat([first, second]), [*bad, *(half + place for place in more)]


def _series(name: str, kind: pl.DataType, values: Sequence[Any]) -> pl.Series:
    import polars as pl

    if isinstance(kind, pl.Decimal):
        values = [None if value is None else _exact(value, kind) for value in values]
    if kind == pl.Int64 and all(isinstance(value, Decimal | None) for value in values):
        values = [None if value is None else int(_exact(value, pl.Decimal(_INT64_DIGITS, 0))) for value in values]
    if kind == pl.String:
        values = [_text(value) for value in values]
    with contextlib.suppress(TypeError):
        return pl.Series(name, values, dtype=kind)
    if len(values) > 1:  # what one value is taken for must not depend on the others
        raise TypeError(f"the values are not all {kind}")
    found = _guessed(name, values)
    if kind.is_integer() and found.dtype.is_float() and not (found.round() == found).all():
        raise TypeError(f"{values[0]} has fractions")  # a cast would cut them off
    return found.cast(kind)


def _exact(value: Any, kind: pl.Decimal) -> Decimal:
    """A decimal with as many places as its column has. Raises ArithmeticError for one that has more, or too many."""
    context = Context(prec=kind.precision, traps=[Inexact, InvalidOperation])
    found = Decimal(value).quantize(Decimal((0, (1,), -kind.scale)), context=context)
    if not found.is_finite():
        raise ArithmeticError(f"{value} is no number")
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        raise TypeError("bytes are no text")
    return value if isinstance(value, str | None) else str(value)


def _guessed(name: str, values: Sequence[Any]) -> pl.Series:
    import polars as pl

    rows = [(value,) for value in values]
    return pl.DataFrame(rows, schema=[name], orient="row", infer_schema_length=None).to_series()
