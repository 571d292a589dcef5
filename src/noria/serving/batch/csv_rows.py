"""Rows out of CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from noria.errors import InvalidData
from noria.serving.batch.csv_signs import Signs, has_decimal_commas, header_of, told_separator
from noria.serving.batch.files import is_tab_separated
from noria.serving.batch.parts import Batch, Part, Refusal
from noria.serving.batch.text_blocks import EndlessRecord, first_record
from noria.serving.batch.texts import SAMPLED_ROWS, TextRows, ill_typed

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class CsvRows(TextRows):
    """Rows of CSV files, each with a header. Numbers are told from texts by the first file's first rows; what has
    leading zeros or is wider than 64 bits is a text, and so are times."""

    quoted = True

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        return self._first_rows[0]

    @cached_property
    def _first_rows(self) -> tuple[Mapping[str, pl.DataType], bool]:
        """What the first rows of the first file that holds anything say of all: types, and whether it has decimal
        commas."""
        import polars as pl

        name = self.files.first_filled()
        header, signs = self._header(name)
        with self.files.open(name) as text:
            self.pass_header(name, text)
            block = next(self.records(name, text, SAMPLED_ROWS), (b"", 0))[0]
        mended = _mended(block, len(header), signs)[0] if block else b""
        texts = signs.read(mended, dict.fromkeys(header, pl.String()))
        told = texts.drop(self.texts, strict=False)
        signs = Signs(signs.separator, signs.separator != "," and has_decimal_commas(told))
        guessed = signs.guess(mended, header) if mended else texts
        kept_texts = {one for one in header if _is_text(guessed[one].dtype, texts[one])}.union(self.texts)
        found = {one: pl.String() if one in kept_texts else kind for one, kind in guessed.schema.items()}
        return {**found, **self.files.hive_types}, signs.decimal_commas

    @cached_property
    def _headers(self) -> dict[str, tuple[Sequence[str], Signs]]:
        return {}

    def _header(self, name: str) -> tuple[Sequence[str], Signs]:
        """The names of a file's columns, and what stands between them. Raises InvalidData for none, or several
        alike."""
        if name not in self._headers:
            with self.files.open(name) as text:
                told, line, _ = _header_record(text, self.shown(name))
            separator = told or ("\t" if is_tab_separated(name) else "")
            self._headers[name] = _names(line, separator, self.shown(name))
        return self._headers[name]

    def pass_header(self, name: str, text: IO[bytes]) -> int:
        """See TextRows."""
        return _header_record(text, self.shown(name))[2]

    def separator(self, name: str) -> str:
        """See TextRows."""
        return self._header(name)[1].separator

    def _signs(self, name: str) -> Signs:
        """How a file's rows are written."""
        separator = self.separator(name)
        return Signs(separator, separator != "," and self._first_rows[1])

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source. Raises InvalidData for a file without one of the columns."""
        import polars as pl

        if self.files.is_empty(part.source):  # one that is compressed, or part of a job without rows
            return
        (header, _), hive = self._header(part.source), self.files.hive.get(part.source, {})
        stored = [name for name in columns if name not in hive]
        if missing := [name for name in stored if name not in header]:
            raise InvalidData(
                f"{self.shown(part.source)} lacks columns: {', '.join(missing)}", remedy=f"It has: {', '.join(header)}."
            )
        types = {name: pl.Float64() if name in numbers else self.schema[name] for name in stored}
        schema = {**self.schema, **types}
        signs = self._signs(part.source)
        for block in self.blocks(part, rows):
            yield self.with_hive(_csv_batch(block, header, types, signs), part, columns, schema)


def _header_record(text: IO[bytes], name: str) -> tuple[str, bytes, int]:
    """What the file itself tells to stand between values, the header, and how many bytes both are."""
    try:
        first = first_record(text)
        told = told_separator(first)
        header = first_record(text) if told else first
    except EndlessRecord as error:
        raise _no_csv(name, f"its first line {error}", "Mend its first line.") from None
    return told, header, len(header) + (len(first) if told else 0)


def _names(line: bytes, separator: str, name: str) -> tuple[Sequence[str], Signs]:
    try:
        header, signs = header_of(line.decode("utf-8-sig"), separator)
    except UnicodeDecodeError as error:
        raise _no_csv(name, str(error), "Save it as UTF-8, or name another --input-format.") from None
    except csv.Error as error:
        raise _no_csv(name, str(error)) from None
    if not header:
        raise _no_csv(name, "its first line is empty")
    if twice := [one for one, count in Counter(header).items() if count > 1]:
        raise InvalidData(
            f"{name} has several columns of one name: {', '.join(map(repr, twice))}", remedy="Rename all but one."
        )
    return header, signs


def _no_csv(name: str, why: str, remedy: str = "Name another --input-format.") -> InvalidData:
    return InvalidData(f"{name} is no CSV with a header: {why}", remedy=remedy)


def _csv_batch(block: bytes, header: Sequence[str], types: Mapping[str, Any], signs: Signs) -> Batch:
    """A row is the same whatever stands beside it: what the quick way does not take goes the slow one, all of it."""
    import polars as pl

    texts = dict.fromkeys(header, pl.String())
    try:
        # All columns, wanted or not: only then a row that is too long is noticed.
        quick = texts if signs.decimal_commas else {name: types.get(name, pl.String()) for name in header}
        frame = signs.read(block, quick)
        if not frame[header[-1]].null_count() or signs.is_even(block, frame.height, len(header)):
            chosen = _chosen(frame, types)
            return _cast(chosen, types, [], signs) if signs.decimal_commas else Batch(chosen)
    except pl.exceptions.PolarsError:
        pass
    mended, refused = _mended(block, len(header), signs)
    return _cast(_chosen(signs.read(mended, texts), types), types, refused, signs)


def _chosen(frame: pl.DataFrame, types: Mapping[str, Any]) -> pl.DataFrame:
    """The columns that are wanted; of none, there are as many rows."""
    import polars as pl

    return frame.select(list(types)) if types else pl.DataFrame(height=frame.height)


def _mended(block: bytes, width: int, signs: Signs) -> tuple[bytes, list[Refusal]]:
    """The block with all rows as Polars takes them; those that are not UTF-8 or have not ``width`` values are refused.

    Their values are null. Empty lines are left out, unless a value is all that a line holds.
    """
    empty = signs.separator.encode() * (width - 1)
    rows: list[bytes] = []
    refused: list[Refusal] = []
    for line in (one for one in signs.records(block) if one or width == 1):
        row, reason = signs.mended_row(line, width)
        if reason:
            refused.append(Refusal(len(rows), reason))
        rows.append(empty if reason else row)
    return b"\n".join([*rows, b""]), refused


def _cast(texts: pl.DataFrame, types: Mapping[str, Any], refused: list[Refusal], signs: Signs) -> Batch:
    """Texts in the types wanted; what is none of them is refused."""
    known = {one.place for one in refused}
    frame = texts.with_columns(_parsed(name, kind, signs) for name, kind in types.items())
    for name, kind in types.items():
        lost = (frame[name].is_null() & texts[name].is_not_null() & (texts[name] != "")).arg_true().to_list()
        refused += [
            Refusal(place, ill_typed(name, texts[name][place], _said(kind, signs)), {name: texts[name][place]})
            for place in lost
            if place not in known
        ]
        known.update(lost)
    return Batch(frame, sorted(refused, key=lambda one: one.place))


def _parsed(name: str, kind: Any, signs: Signs) -> pl.Expr:
    import polars as pl

    column = pl.col(name)
    if isinstance(kind, pl.Boolean):
        return column.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    return signs.number(column).cast(kind, strict=False) if kind.is_numeric() else column


def _said(kind: Any, signs: Signs) -> str:
    if kind.is_integer():
        return "a whole number"
    if kind.is_numeric() and signs.decimal_commas:
        return "a number with a decimal comma, as the file has others"
    return "a number" if kind.is_numeric() else f"a {str(kind).lower()}"


def _is_text(guessed: Any, texts: pl.Series) -> bool:
    """Whether a column that looks like numbers is none: an id with zeros before it, or wider than 64 bits."""
    import polars as pl

    if not guessed.is_numeric():
        return False
    return guessed == pl.Int128 or bool(texts.str.contains(r"^[+-]?0\d").any())
