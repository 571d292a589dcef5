"""Rows out of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData
from noria.serving.batch.parts import Batch, Part, Refusal
from noria.serving.batch.text_blocks import record_blocks
from noria.serving.batch.texts import SAMPLED_ROWS, TextRows, ill_typed

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class CsvRows(TextRows):
    """Rows of CSV files, each with a header. Numbers are told from texts by the first file's first rows; what has
    leading zeros is a text, and so are times."""

    quoted = True
    header_rows = 1

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        import polars as pl

        name = self.files.files[0].name
        with self.files.open(name) as text:
            header = text.readline()
            block = next(record_blocks(text, SAMPLED_ROWS, quoted=True), (b"", 0))[0]
        try:
            guessed = pl.read_csv(header + block, infer_schema_length=None)
            texts = pl.read_csv(header + block, infer_schema=False)
        except pl.exceptions.PolarsError as error:
            raise InvalidData(
                f"{name} is no CSV with a header: {error}", remedy="Name another --input-format."
            ) from None
        padded = {one for one in guessed.columns if guessed[one].dtype.is_numeric() and _is_padded(texts[one])}
        kept_texts = padded.union(self.texts)
        found = {one: pl.String() if one in kept_texts else kind for one, kind in guessed.schema.items()}
        return {**found, **self.files.hive_types}

    @cached_property
    def _headers(self) -> dict[str, list[str]]:
        return {}

    def _header(self, name: str) -> list[str]:
        if name not in self._headers:
            with self.files.open(name) as text:
                self._headers[name] = next(csv.reader([text.readline().decode("utf-8-sig")]), [])
        return self._headers[name]

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source. Raises InvalidData for a file without one of the columns."""
        import polars as pl

        header, hive = self._header(part.source), self.files.hive.get(part.source, {})
        stored = [name for name in columns if name not in hive]
        if missing := [name for name in stored if name not in header]:
            raise InvalidData(
                f"{part.source} lacks columns: {', '.join(missing)}", remedy=f"It has: {', '.join(header)}."
            )
        types = {name: pl.Float64() if name in numbers else self.schema[name] for name in stored}
        schema = {**self.schema, **types}
        for block in self.blocks(part, rows):
            yield self.with_hive(_csv_batch(block, header, types), part, columns, schema)


def _csv_batch(block: bytes, header: Sequence[str], types: Mapping[str, Any]) -> Batch:
    import polars as pl

    schema = {name: types.get(name, pl.String()) for name in header}
    try:
        places = [header.index(name) for name in types]
        frame = pl.read_csv(block, has_header=False, schema=schema, columns=places or None)
        return Batch(frame.select(list(types)))
    except pl.exceptions.PolarsError:
        lines = [line for line in csv.reader(io.StringIO(block.decode(errors="replace"), newline="")) if line]
    width, refused = len(header), []
    for place, line in enumerate(lines):
        if len(line) != width:
            refused.append(Refusal(place, f"the row has {len(line)} values, and the header {width}"))
    bad = {one.place for one in refused}
    rows = [[None] * width if place in bad else line for place, line in enumerate(lines)]
    texts = pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row").select(list(types))
    texts = texts.with_columns(pl.when(pl.all() != "").then(pl.all()))
    return _cast(texts, types, refused)


def _cast(texts: pl.DataFrame, types: Mapping[str, Any], refused: list[Refusal]) -> Batch:
    """Texts in the types wanted; what is none of them is refused."""
    known = {one.place for one in refused}
    frame = texts.select(_parsed(name, kind) for name, kind in types.items())
    for name, kind in types.items():
        lost = (frame[name].is_null() & texts[name].is_not_null()).arg_true().to_list()
        refused += [
            Refusal(place, ill_typed(name, texts[name][place], _said(kind))) for place in lost if place not in known
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
    return "a number" if kind.is_numeric() else f"a {str(kind).lower()}"


def _is_padded(texts: pl.Series) -> bool:
    return bool(texts.str.contains(r"^[+-]?0\d").any())
