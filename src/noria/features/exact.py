"""Columns brought to another type with every value kept: what no value of it equals is told, never cut off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from noria.features.types import FeatureType

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 80


class Inexact(ValueError):
    """A value that a type does not have. Polars makes an error anew from its text, so the text says all of it."""

    @classmethod
    def of(cls, column: str, row: int, value: str, kind: str) -> Inexact:
        """The error for one value, as it is written; ``kind`` is the type, as a person reads it."""
        return cls(json.dumps([column, row, value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...", kind]))

    @property
    def parts(self) -> tuple[str, int, str, str]:
        """Column, row (of the batch it was found in), value and type."""
        column, row, value, kind = json.loads(str(self).partition("\n")[0])
        return column, row, value, kind


def exact(values: pl.Series, dtype: pl.DataType, kind: str = "") -> pl.Series:
    """``values`` in another type; ``kind`` is how that is called. Raises Inexact.

    Numbers may be rounded to floats, and texts, numbers and booleans stand for each other where both say the same.
    """
    import polars as pl

    if values.dtype == dtype:
        return values
    if isinstance(dtype, pl.Struct):  # a dictionary takes the members that its column has
        members = {one.name for one in getattr(values.dtype, "fields", ())}
        of = pl.col(values.name).struct
        held = [
            (of.field(one.name) if one.name in members else pl.lit(None)).cast(one.dtype).alias(one.name)
            for one in dtype.fields
        ]
        filled = pl.when(pl.col(values.name).is_not_null()).then(pl.struct(held))
        return values.to_frame().select(filled.alias(values.name)).to_series()
    if isinstance(dtype, pl.List) and isinstance(values.dtype, pl.List | pl.Array):
        _check_lists(values, pl.Series(dtype=dtype.inner).dtype, kind or str(dtype))
        return values.cast(dtype)
    if values.dtype.is_nested() or dtype.is_nested():
        row = int(values.is_not_null().arg_max() or 0)
        raise Inexact.of(values.name, row, repr(values[row]), kind or str(dtype))
    given = values
    if dtype == pl.String and values.dtype.is_float():
        given = exact(values, pl.Int64(), kind)  # a whole number is written without a point
    cast = given.cast(dtype, strict=False)
    if (wrong := _changed(given, cast)) is not None:
        raise Inexact.of(values.name, wrong, repr(values[wrong]), kind or str(dtype))
    return cast


def exactly(column: str, given: pl.DataType, wanted: FeatureType) -> pl.Expr:
    """A column in the type of a feature, as ``exact`` gives it."""
    import polars as pl

    dtype, kind = wanted.polars(), str(wanted)
    value = pl.col(column)
    if given == dtype or _always_fits(given, dtype):
        return value.cast(dtype)
    return value.map_batches(lambda values: exact(values, dtype, kind), return_dtype=dtype, is_elementwise=True)


def _check_lists(values: pl.Series, inner: pl.DataType, kind: str) -> None:
    import polars as pl

    try:
        exact(values.explode(empty_as_null=False, keep_nulls=False), inner, kind)
    except Inexact as error:
        _, place, value, _ = error.parts
        lengths = (values.arr if isinstance(values.dtype, pl.Array) else values.list).len()
        row = (lengths.fill_null(0).cum_sum() > place).arg_max()
        raise Inexact.of(values.name, int(row or 0), value, kind) from None


def _changed(given: pl.Series, cast: pl.Series) -> int | None:
    """The first row whose value became another one."""
    there = given.is_not_null()
    if cast.dtype.is_float() and given.dtype.is_numeric():
        wrong = cast.is_null() & there if not given.dtype.is_float() else cast.is_infinite() & given.is_finite()
    else:
        wrong = there & given.ne_missing(cast.cast(given.dtype, strict=False))
    return int(wrong.arg_max() or 0) if wrong.any() else None


def _always_fits(given: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether no value can be lost, so that a plain cast will do, which filters see through."""
    import polars as pl

    if isinstance(given, pl.List) and isinstance(wanted, pl.List):
        return _always_fits(pl.Series(dtype=given.inner).dtype, pl.Series(dtype=wanted.inner).dtype)
    if given in (pl.Null, pl.Boolean, wanted) or (given in (pl.Categorical, pl.Enum) and wanted == pl.String):
        return True
    if wanted == pl.Float64:
        return given.is_numeric()
    small = (pl.Int8, pl.UInt8, pl.Int16, pl.UInt16)
    return given in (*small, pl.Int32, pl.UInt32) if wanted == pl.Int64 else given in small and wanted == pl.Int32
