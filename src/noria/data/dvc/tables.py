"""What changed between two versions of a table: columns, types, and rows by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from noria.errors import InvalidData, InvalidInput

if TYPE_CHECKING:
    import polars as pl

_SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class RowChange:
    """Rows by key: how many came, went and have another value, and the keys of the first five changed."""

    added: int
    removed: int
    changed: int
    changed_keys: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True)
class TableChange:
    """Columns that came and went, name → types before and after, rows before and after, and rows by key if asked."""

    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    types_changed: Mapping[str, tuple[str, str]]
    rows_before: int
    rows_after: int
    rows: RowChange | None


def is_table(path: str) -> bool:
    """Whether the name is of a table that can be compared."""
    return PurePosixPath(path).suffix.lower() in (".parquet", ".csv")


def compare_tables(name: str, before: Path, after: Path, key: Sequence[str] = ()) -> TableChange:
    """What changed from one file to the other; ``key`` names the columns that tell rows apart.

    Raises InvalidInput when a version lacks a column of the key, InvalidData for rows that share a key and for a file
    that is no table.
    """
    old, new = _read(name, before), _read(name, after)
    shared = [column for column in old.columns if column in new.columns]
    return TableChange(
        tuple(column for column in new.columns if column not in old.columns),
        tuple(column for column in old.columns if column not in new.columns),
        {c: (str(old.schema[c]), str(new.schema[c])) for c in shared if old.schema[c] != new.schema[c]},
        old.height,
        new.height,
        _compare_rows(name, old, new, list(key), shared) if key else None,
    )


def _read(name: str, path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        if name.lower().endswith(".csv"):
            return pl.read_csv(path, infer_schema_length=None, try_parse_dates=True)
        return pl.read_parquet(path, glob=False)
    except pl.exceptions.NoDataError:
        return pl.DataFrame()
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        why = str(error).split("\n", 1)[0]
        raise InvalidData(
            f"{name} is no table that can be read: {why}", remedy="Leave it out, or compare without its rows."
        ) from None


def _compare_rows(name: str, old: pl.DataFrame, new: pl.DataFrame, key: list[str], shared: Sequence[str]) -> RowChange:
    import polars as pl

    if absent := [column for column in key if column not in shared]:
        raise InvalidInput(
            f"{name} has no column {', '.join(map(repr, absent))} in both versions",
            remedy=f"Choose --key from: {', '.join(shared) or 'none'}.",
        )
    values = [column for column in shared if column not in key]
    old, new = _comparable(old, new, [*key, *values])
    for frame, when in ((old, "before"), (new, "after")):
        if repeated := frame.height - frame.select(key).n_unique():
            raise InvalidData(
                f"{repeated} rows of {name} {when} share their key ({', '.join(key)}) with another",
                remedy="Name more columns with --key.",
            )
    both = old.join(new, on=key, how="inner", nulls_equal=True, suffix="\0after")
    differs = pl.any_horizontal([pl.lit(False), *(pl.col(c).ne_missing(pl.col(f"{c}\0after")) for c in values)])
    changed = both.filter(differs)
    shown = tuple(changed.select(key).sort(key).head(_SHOWN_KEYS).to_dicts())
    return RowChange(new.height - both.height, old.height - both.height, changed.height, shown)


def _comparable(old: pl.DataFrame, new: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both with the same types: numbers of two kinds as floats, whatever else differs as text."""
    import polars as pl

    casts = []
    for column in columns:
        one, other = old.schema[column], new.schema[column]
        if one != other:
            kind = pl.Float64 if one.is_numeric() and other.is_numeric() else pl.String
            casts.append(pl.col(column).cast(kind))
    return old.select(columns).with_columns(casts), new.select(columns).with_columns(casts)
