"""Rows out of CSV."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData
from noria.serving.batch.parts import Batch, Part, Refusal
from noria.serving.batch.text_blocks import record_blocks, records_of
from noria.serving.batch.texts import SAMPLED_ROWS, TextRows, ill_typed

if TYPE_CHECKING:
    import polars as pl

_OTHER = re.compile(r"[;\t|]")
"""What others put between values; in the only column's name it is taken for that."""
_QUOTED = re.compile(rb'"[^"]*"')
_VALUE = rb'(?:"(?:[^"]|"")*"|[^",]*)'
_WELL_QUOTED = re.compile(rb"%s(?:,%s)*" % (_VALUE, _VALUE))


@dataclass(frozen=True)
class CsvRows(TextRows):
    """Rows of CSV files, each with a header. Numbers are told from texts by the first file's first rows; what has
    leading zeros or is wider than 64 bits is a text, and so are times."""

    quoted = True
    header_rows = 1

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        import polars as pl

        name = self.files.first_filled()
        header = self._header(name)
        with self.files.open(name) as text:
            text.readline()
            block = next(record_blocks(text, SAMPLED_ROWS, quoted=True), (b"", 0))[0]
        mended = _mended(block, len(header))[0] if block else b""
        texts = _read(mended, dict.fromkeys(header, pl.String()))
        guessed = (
            pl.read_csv(mended, has_header=False, new_columns=header, infer_schema_length=None) if mended else texts
        )
        kept_texts = {one for one in header if _is_text(guessed[one].dtype, texts[one])}.union(self.texts)
        found = {one: pl.String() if one in kept_texts else kind for one, kind in guessed.schema.items()}
        return {**found, **self.files.hive_types}

    @cached_property
    def _headers(self) -> dict[str, list[str]]:
        return {}

    def _header(self, name: str) -> list[str]:
        """The names of a file's columns. Raises InvalidData for none, or several alike."""
        if name not in self._headers:
            with self.files.open(name) as text:
                self._headers[name] = _names(text.readline(), self.shown(name))
        return self._headers[name]

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source. Raises InvalidData for a file without one of the columns."""
        import polars as pl

        if self.files.is_empty(part.source):  # one that is compressed, or part of a job without rows
            return
        header, hive = self._header(part.source), self.files.hive.get(part.source, {})
        stored = [name for name in columns if name not in hive]
        if missing := [name for name in stored if name not in header]:
            raise InvalidData(
                f"{self.shown(part.source)} lacks columns: {', '.join(missing)}", remedy=f"It has: {', '.join(header)}."
            )
        types = {name: pl.Float64() if name in numbers else self.schema[name] for name in stored}
        schema = {**self.schema, **types}
        for block in self.blocks(part, rows):
            yield self.with_hive(_csv_batch(block, header, types), part, columns, schema)


def _names(line: bytes, name: str) -> list[str]:
    try:
        header = next(csv.reader([line.decode("utf-8-sig")]), [])
    except UnicodeDecodeError as error:
        raise _no_csv(name, str(error), "Save it as UTF-8, or name another --input-format.") from None
    except csv.Error as error:
        raise _no_csv(name, str(error)) from None
    if not header:
        raise _no_csv(name, "its first line is empty")
    if other := _OTHER.search(header[0]) if len(header) == 1 else None:
        raise _no_csv(name, f"its values stand between {other[0]!r}, not commas", "Write it with commas.")
    if twice := [one for one, count in Counter(header).items() if count > 1]:
        raise InvalidData(
            f"{name} has several columns of one name: {', '.join(map(repr, twice))}", remedy="Rename all but one."
        )
    return header


def _no_csv(name: str, why: str, remedy: str = "Name another --input-format.") -> InvalidData:
    return InvalidData(f"{name} is no CSV with a header: {why}", remedy=remedy)


def _csv_batch(block: bytes, header: Sequence[str], types: Mapping[str, Any]) -> Batch:
    """A row is the same whatever stands beside it: what the quick way does not take goes the slow one, all of it."""
    import polars as pl

    try:
        # All columns, wanted or not: only then a row that is too long is noticed.
        frame = _read(block, {name: types.get(name, pl.String()) for name in header})
        if not frame[header[-1]].null_count() or _is_even(block, frame.height, len(header)):
            return Batch(_chosen(frame, types))
    except pl.exceptions.PolarsError:
        pass
    mended, refused = _mended(block, len(header))
    texts = _read(mended, dict.fromkeys(header, pl.String()))
    return _cast(_chosen(texts, types), types, refused)


def _chosen(frame: pl.DataFrame, types: Mapping[str, Any]) -> pl.DataFrame:
    """The columns that are wanted; of none, there are as many rows."""
    import polars as pl

    return frame.select(list(types)) if types else pl.DataFrame(height=frame.height)


def _read(block: bytes, schema: Mapping[str, Any]) -> pl.DataFrame:
    import polars as pl

    return pl.read_csv(block, has_header=False, schema=dict(schema)) if block else pl.DataFrame(schema=dict(schema))


def _is_even(block: bytes, rows: int, width: int) -> bool:
    """Whether no row is shorter than ``width``, where none is longer: Polars takes what is missing for null."""
    within = b"".join(_QUOTED.findall(block)) if b'"' in block else b""
    return block.count(b",") - within.count(b",") == rows * (width - 1)


def _mended(block: bytes, width: int) -> tuple[bytes, list[Refusal]]:
    """The block with all rows as Polars takes them; those that are not UTF-8 or have not ``width`` values are refused.

    Their values are null. Empty lines are left out, unless a value is all that a line holds.
    """
    lines = [record.rstrip(b"\r\n") for record in records_of(block)]
    rows: list[bytes] = []
    refused: list[Refusal] = []
    for line in (one for one in lines if one or width == 1):
        row, reason = _mended_row(line, width)
        if reason:
            refused.append(Refusal(len(rows), reason))
        rows.append(b"," * (width - 1) if reason else row)
    return b"\n".join([*rows, b""]), refused


def _mended_row(line: bytes, width: int) -> tuple[bytes, str]:
    """A line without its end, quoted as it should be, or why it is no row."""
    try:
        line.decode()
    except UnicodeDecodeError as error:  # to replace what it cannot say would make one key of two
        return b"", f"the row is not UTF-8: {error.reason} at its byte {error.start}"
    if b'"' not in line or _WELL_QUOTED.fullmatch(line):
        row, found = line, _QUOTED.sub(b"", line).count(b",") + 1
    else:
        try:
            values = next(csv.reader([line.decode()]))
        except csv.Error as error:
            return b"", f"the row is no CSV: {error}"
        row, found = _quoted(values), len(values)
    return row, "" if found == width else f"the row has {found} values, and the header {width}"


def _quoted(values: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue().encode()


def _cast(texts: pl.DataFrame, types: Mapping[str, Any], refused: list[Refusal]) -> Batch:
    """Texts in the types wanted; what is none of them is refused."""
    known = {one.place for one in refused}
    frame = texts.with_columns(_parsed(name, kind) for name, kind in types.items())
    for name, kind in types.items():
        lost = (frame[name].is_null() & texts[name].is_not_null() & (texts[name] != "")).arg_true().to_list()
        refused += [
            Refusal(place, ill_typed(name, texts[name][place], _said(kind)), {name: texts[name][place]})
            for place in lost
            if place not in known
        ]
        known.update(lost)
    return Batch(frame, sorted(refused, key=lambda one: one.place))


def _parsed(name: str, kind: Any) -> pl.Expr:
    import polars as pl

    column = pl.col(name)
    if isinstance(kind, pl.Boolean):
        return column.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    return column.str.strip_chars().cast(kind, strict=False) if kind.is_numeric() else column


def _said(kind: Any) -> str:
    if kind.is_integer():
        return "a whole number"
    return "a number" if kind.is_numeric() else f"a {str(kind).lower()}"


def _is_text(guessed: Any, texts: pl.Series) -> bool:
    """Whether a column that looks like numbers is none: an id with zeros before it, or wider than 64 bits."""
    import polars as pl

    if not guessed.is_numeric():
        return False
    return guessed == pl.Int128 or bool(texts.str.contains(r"^[+-]?0\d").any())
