"""Validation: a frame keeps its column contracts, or the rows that do not are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from noria.errors import InvalidData
from noria.schema import Column, Kind, has_kind

if TYPE_CHECKING:
    import polars as pl

_NAMED_ROWS = 5


def validate(frame: pl.DataFrame, columns: Sequence[Column], *, name: str, key: str) -> pl.DataFrame:
    """The contracted columns of ``frame``, in order. Raises InvalidData with every finding.

    Findings name the number of failing rows and the keys of the first five.
    """
    if not isinstance(frame, _polars_frame()):
        raise InvalidData(
            f"the source of {name!r} gave a {type(frame).__name__}, not a Polars DataFrame",
            remedy="Return pl.read_csv(...), pl.read_parquet(...) or pl.from_pandas(...).",
        )
    findings = list(_shape_findings(frame, columns))
    if not findings:
        findings = [*_key_findings(frame, key), *(f for column in columns for f in _findings(frame, column, key))]
    if findings:
        raise InvalidData(
            f"table {name!r} breaks its contract", details=findings, remedy="Mend these rows or the contract."
        )
    return frame.select(column.name for column in columns)


def _polars_frame() -> type[pl.DataFrame]:
    import polars as pl

    return pl.DataFrame


def _shape_findings(frame: pl.DataFrame, columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        if column.name not in frame.columns:
            yield f"column {column.name!r} is missing; there are {', '.join(frame.columns)}"
        elif not has_kind(frame.schema[column.name], column.kind):
            dtype = frame.schema[column.name]
            yield f"column {column.name!r} is {dtype}, not {column.kind}{_hint(column.name, dtype, column.kind)}"


def _hint(name: str, dtype: pl.DataType, kind: Kind) -> str:
    """How such a column becomes an instant: what a table read from a file nearly always needs."""
    import polars as pl

    if kind != "instant":
        return ""
    if isinstance(dtype, pl.Datetime):
        zone = "replace_time_zone" if dtype.time_zone is None else "convert_time_zone"
        return f": pl.col({name!r}).dt.{zone}('UTC') is"
    if dtype == pl.Date:
        return f": pl.col({name!r}).cast(pl.Datetime).dt.replace_time_zone('UTC') is"
    return f": pl.col({name!r}).str.to_datetime(time_zone='UTC') is" if dtype == pl.String else ""


def _key_findings(frame: pl.DataFrame, key: str) -> Iterator[str]:
    repeated = frame.filter(frame[key].is_duplicated())
    if repeated.height:
        yield f"key {key!r} is not unique: {_rows(repeated, key)}"


def _findings(frame: pl.DataFrame, column: Column, key: str) -> Iterator[str]:
    import polars as pl

    values = pl.col(column.name)
    checks: list[tuple[str, pl.Expr]] = []
    if frame.schema[column.name].is_float():
        checks.append(("is infinite", values.is_infinite()))
        values = values.fill_nan(None)  # other libraries' way to write a null
    if not column.nullable:
        checks.append(("is null", values.is_null()))
    if column.minimum is not None:
        checks.append((f"is below {column.minimum:g}", values < column.minimum))
    if column.maximum is not None:
        checks.append((f"is above {column.maximum:g}", values > column.maximum))
    if column.one_of is not None:
        checks.append((f"is none of {', '.join(column.one_of)}", ~values.is_in(list(column.one_of))))
    for fault, broken in checks:
        rows = frame.filter(broken)
        if rows.height:
            yield f"column {column.name!r} {fault} in {_rows(rows, key)}"


def _rows(rows: pl.DataFrame, key: str) -> str:
    named = ", ".join(str(value) for value in rows[key].head(_NAMED_ROWS))
    more = ", ..." if rows.height > _NAMED_ROWS else ""
    return f"{rows.height} {'row' if rows.height == 1 else 'rows'} (key {key}: {named}{more})"
