"""Join keys of an entity frame and of a source, brought to one type; entities as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from noria.errors import InvalidData
from noria.features.asof import NONE
from noria.features.partitions import within
from noria.features.search import Ascending, Ints

if TYPE_CHECKING:
    import polars as pl

_NUMBER = "__entity"
_LEAST_ARRAY = 1_000_000
_MOST_SOUGHT = 20_000
"""With more entities, a scan takes longer to look for their keys than to read the rows of the others."""


@dataclass(frozen=True, slots=True)
class Entities:
    """The entities a frame asks for, numbered from 0.

    ``numbers`` has one for each row of the frame, NONE where a key is null or cannot occur in the source: null matches
    nothing. ``named`` holds their keys in the types of the source, sorted, and their numbers; ``table`` the same in a
    form that many rows are looked up in, which takes far less than a hash join.
    """

    numbers: Ints
    named: pl.DataFrame
    table: _Array | _Hashes | None = None

    @classmethod
    def of(cls, keys: pl.DataFrame, height: int) -> Self:
        """From the key columns of a frame of so many rows; without any, all rows are one entity."""
        import polars as pl

        if not keys.width:
            return cls(np.zeros(height, np.int64), keys)
        if keys.width == 1 and (array := _Array.of(keys.to_series())) is not None:
            return cls(array.find(keys), array.named(keys.columns[0], keys.dtypes[0]), array)
        named = keys.drop_nulls().unique().sort(keys.columns).with_row_index(_NUMBER).cast({_NUMBER: pl.Int64})
        return cls(_joined(keys, named), named, _Hashes.of(named))

    @property
    def key_names(self) -> list[str]:
        return [name for name in self.named.columns if name != _NUMBER]

    def wanted(self) -> dict[str, pl.Series]:
        """Key → the values that are asked for."""
        return {name: self.named[name].unique().sort() for name in self.key_names}

    def among(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """``rows`` without most of the other entities: a scan skips them where so few are asked for, or by ranges."""
        import polars as pl

        if not self.key_names or not self.named.height:
            return rows
        if self.named.height <= _MOST_SOUGHT:
            conditions = [pl.col(name).is_in(values.implode()) for name, values in self.wanted().items()]
            return rows.filter(*conditions)
        first = self.key_names[0]
        condition = within(self.named[first])
        return rows if condition is None else rows.filter(condition(pl.col(first)))

    def only(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """``rows`` of these entities alone, in their order."""
        if not self.key_names:
            return rows
        named = self.named.lazy().select(self.key_names)
        return self.among(rows).join(named, on=self.key_names, how="semi", maintain_order="left")

    def find(self, batch: pl.DataFrame) -> Ints:
        """The number of each row's entity, NONE where nobody asked for it.

        Where the rows of an entity follow each other, as in a sorted file, only the first of them is looked up.
        """
        import polars as pl

        if not self.key_names:
            return np.zeros(batch.height, np.int64)
        keys = batch.select(self.key_names)
        if isinstance(self.table, _Array):
            return self.table.find(keys)
        changed = keys.select(pl.any_horizontal(pl.all().ne_missing(pl.all().shift()))).to_series().to_numpy().copy()
        changed[:1] = True
        heads = np.flatnonzero(changed)
        if len(heads) * 2 > keys.height:
            return self._numbered(keys)
        return np.repeat(self._numbered(keys[heads]), np.diff(heads, append=keys.height))

    def _numbered(self, keys: pl.DataFrame) -> Ints:
        return _joined(keys, self.named) if self.table is None else self.table.find(keys)


@dataclass(frozen=True, slots=True)
class _Array:
    """Entity numbers by integer key: that of key k at k - before; the first and the last are of all others."""

    before: int
    numbers: Ints

    @classmethod
    def of(cls, keys: pl.Series) -> Self | None:
        """Numbers in the order of the keys; None for no integers, or such gaps that the array would be large."""
        import polars as pl

        if not keys.dtype.is_integer() or keys.dtype in (pl.Int128, pl.UInt64) or keys.null_count() == len(keys):
            return None
        known = keys.drop_nulls().cast(pl.Int64).to_numpy()
        before, span = int(known.min()) - 1, int(known.max()) - int(known.min()) + 1
        if span > _LEAST_ARRAY + 4 * len(known) or before < np.iinfo(np.int64).min:
            return None
        asked = np.zeros(span + 2, np.bool_)
        asked[known - before] = True
        return cls(before, np.where(asked, np.cumsum(asked) - 1, NONE))

    def named(self, key: str, dtype: pl.DataType) -> pl.DataFrame:
        """All keys, in their own type, and their numbers."""
        import polars as pl

        places = np.flatnonzero(self.numbers != NONE)
        return pl.DataFrame({_NUMBER: self.numbers[places], key: pl.Series(places + self.before, dtype=dtype)})

    def find(self, frame: pl.DataFrame) -> Ints:
        """The numbers of the keys in its only column, NONE for nulls and for those that are not in it."""
        import polars as pl

        keys = frame.to_series()
        whole = keys.cast(pl.Int64)
        known = whole.fill_null(0) if keys.null_count() else whole
        # What is so far below that it wraps around comes to the other end, where nobody is either.
        found: Ints = self.numbers.take(known.to_numpy() - self.before, mode="clip")
        return np.where(keys.is_null().to_numpy(), NONE, found) if keys.null_count() else found


@dataclass(frozen=True, slots=True)
class _Hashes:
    """Entity numbers by hash: ``keys`` and ``numbers`` are in the order of the hashes."""

    hashes: Ascending
    keys: pl.DataFrame
    numbers: Ints

    @classmethod
    def of(cls, named: pl.DataFrame) -> Self | None:
        """None where two keys have the same hash, or there are none."""
        keys = named.drop(_NUMBER)
        hashes = _hashed(keys)
        order = np.argsort(hashes)
        ordered = hashes[order]
        if not len(order) or (ordered[1:] == ordered[:-1]).any():
            return None
        return cls(Ascending.of(ordered), keys[order], named[_NUMBER].to_numpy()[order])

    def find(self, keys: pl.DataFrame) -> Ints:
        """The numbers of keys, NONE for those with nulls and for those that are not in it."""
        places = np.minimum(self.hashes.find(_hashed(keys)), len(self.numbers) - 1)
        same = np.ones(len(places), np.bool_)
        for held, sought in zip(self.keys[places].iter_columns(), keys.iter_columns(), strict=True):
            same &= held.eq_missing(sought).to_numpy()
        return np.where(same, self.numbers[places], NONE)


def _hashed(keys: pl.DataFrame) -> Ints:
    """Without the sign, which ``Ascending`` does not take."""
    return (keys.hash_rows().to_numpy() >> np.uint64(1)).view(np.int64)


def matched(
    events: pl.DataFrame, schema: Mapping[str, pl.DataType], columns: Mapping[str, str], view: str, source: str
) -> tuple[pl.DataFrame, dict[str, pl.DataType]]:
    """The key columns of ``events`` named and typed as in a source, and how its keys are to be cast for that.

    ``columns``: join key → column of the events. A value that the source's type cannot hold becomes null. Raises
    InvalidData when the kinds differ, or the source has no such key.
    """
    import polars as pl

    found: dict[str, pl.Series] = {}
    casts: dict[str, pl.DataType] = {}
    for key, column in columns.items():
        if key not in schema:
            raise InvalidData(f"source {source!r} lacks columns: {key}", remedy=f"It has: {', '.join(schema)}.")
        asked, stored = _whole(events[column], schema[key]), schema[key]
        _check_kinds(asked, stored, f"join key {key!r} of feature view {view!r}")
        common = next((dtype for dtype in (stored, asked.dtype) if dtype != pl.Null), pl.String())
        common = pl.String() if _kind(common) == "text" else common
        if stored != common:
            casts[key] = common
        found[key] = _exact(asked, common)
    return events.select(pl.lit(value).alias(key) for key, value in found.items()), casts


def _joined(keys: pl.DataFrame, named: pl.DataFrame) -> Ints:
    found = keys.join(named, on=keys.columns, how="left", maintain_order="left")[_NUMBER]
    return found.fill_null(NONE).to_numpy()


def _exact(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """``values`` in another type, null where that would change them."""
    if values.dtype == dtype:
        return values
    cast = values.cast(dtype, strict=False)
    if _kind(dtype) == "text":
        return cast
    return cast.zip_with(cast.cast(values.dtype, strict=False) == values, cast.clear(len(values)))


def _whole(asked: pl.Series, stored: pl.DataType) -> pl.Series:
    """Whole numbers that pandas keeps as floats, because one of them is missing, as integers."""
    if not (asked.dtype.is_float() and _kind(stored) == "integer"):
        return asked
    import polars as pl

    known = asked.fill_nan(None)
    whole = known.cast(pl.Int64, strict=False)
    return whole if (known.is_null() | (whole.cast(known.dtype) == known)).all() else asked


def _check_kinds(asked: pl.Series, stored: pl.DataType, what: str) -> None:
    mine, theirs = _kind(asked.dtype), _kind(stored)
    if not mine or not theirs:
        raise InvalidData(
            f"{what} is {stored} in its source and {asked.dtype} in the entity frame, which cannot be compared",
            remedy="Use integers, texts, booleans, bytes, dates or instants as keys.",
        )
    if mine != theirs and "null" not in (mine, theirs):
        raise InvalidData(
            f"{what} is {theirs} ({stored}) in its source and {mine} ({asked.dtype}) in the entity frame",
            remedy=f"Make column {asked.name!r} {theirs}: cast it before the join.",
        )


def _kind(dtype: pl.DataType) -> str:
    """What values of a type can equal each other; empty for types that are no keys."""
    import polars as pl

    if dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0):
        return "integer"
    if dtype.is_float() or isinstance(dtype, pl.Decimal):
        return "fractional"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    plain = {"Boolean": "boolean", "Binary": "bytes", "Date": "date", "Datetime": "instant", "Null": "null"}
    return plain.get(str(dtype.base_type()), "")
