"""Rows out of CSV and JSON lines, by byte ranges that end where records do.

A block of lines is read at once when all its values fit; else value by value, to say which row does not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from noria.errors import InvalidData
from noria.serving.batch.files import InputFiles
from noria.serving.batch.parts import Batch, Listed, Part, Refusal
from noria.serving.batch.text_blocks import record_blocks

if TYPE_CHECKING:
    import polars as pl

_SAMPLED_ROWS = 10_000
_SCANNED_BYTES = 1 << 18
_NUMERIC = ("Int", "UInt", "Float", "Boolean", "Null", "Decimal")


@dataclass(frozen=True)
class _TextRows:
    """What CSV and JSON lines have in common. ``texts`` are columns that are texts whatever they look like."""

    files: InputFiles
    texts: Sequence[str] = field(default=())

    typed = False
    quoted = False
    header_rows = 0

    def listing(self) -> Sequence[Listed]:
        """See Source."""
        return self.files.files

    def parts(self, rows: int) -> Sequence[Part]:
        """See Source. Local files are read once to find where records end; one that is compressed, or that lies in
        an object store, is one part."""
        found: list[Part] = []
        for listed in self.files.files:
            if self.files.root != "/" or listed.name.endswith(".gz") or self.is_one_document(listed.name):
                found.append(Part(len(found), listed.name, (0, None)))
            else:
                found += self._cut(listed.name, rows, len(found))
        return found

    def is_one_document(self, name: str) -> bool:
        """Whether a file cannot be cut."""
        del name
        return False

    def _cut(self, name: str, rows: int, number: int) -> Iterator[Part]:
        with self.files.open(name) as text:
            start = sum(len(text.readline()) for _ in range(self.header_rows))
            first = 0
            text.seek(start)
            for block, count in record_blocks(text, rows, quoted=self.quoted):
                yield Part(number, name, (start, start + len(block)), count, first)
                number, start, first = number + 1, start + len(block), first + count

    def blocks(self, part: Part, rows: int) -> Iterator[bytes]:
        """The part's records as blocks of lines."""
        with self.files.open(part.source) as text:
            start, end = part.span
            if end is None:
                for _ in range(self.header_rows):
                    text.readline()
            else:
                text.seek(start)
            size = None if end is None else end - start
            for block, _ in record_blocks(text, rows, quoted=self.quoted, size=size):
                yield block

    def with_hive(self, batch: Batch, part: Part, columns: Sequence[str], schema: Mapping[str, Any]) -> Batch:
        """The batch with what its file's folders say."""
        import polars as pl

        hive = self.files.hive.get(part.source, {})
        added = [pl.lit(hive[name], schema[name]).alias(name) for name in columns if name in hive]
        return Batch(batch.frame.with_columns(added).select(columns), batch.refused)


@dataclass(frozen=True)
class CsvRows(_TextRows):
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
            block = next(record_blocks(text, _SAMPLED_ROWS, quoted=True), (b"", 0))[0]
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


@dataclass(frozen=True)
class JsonRows(_TextRows):
    """Rows of JSON: an object a line, or one array of objects, which is then in memory at once."""

    def is_one_document(self, name: str) -> bool:
        """Whether it is an array."""
        with self.files.open(name) as text:
            return text.read(_SCANNED_BYTES).lstrip()[:1] == b"["

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        import polars as pl

        part = Part(0, self.files.files[0].name, (0, None))
        block = next(self.blocks(part, _SAMPLED_ROWS), b"")
        try:
            frame = pl.read_ndjson(block, infer_schema_length=None)
        except pl.exceptions.PolarsError:
            frame = pl.DataFrame(_objects(block), infer_schema_length=None, strict=False)
        if not frame.width:
            raise InvalidData(f"{part.source} holds no JSON objects", remedy="Name another --input-format.")
        found = {one: pl.String() if one in self.texts else kind for one, kind in frame.schema.items()}
        return {**found, **self.files.hive_types}

    def blocks(self, part: Part, rows: int) -> Iterator[bytes]:
        """See _TextRows; an array as the lines it could have been."""
        if part.span[1] is not None or not self.is_one_document(part.source):
            yield from super().blocks(part, rows)
            return
        with self.files.open(part.source) as text:
            try:
                entries = msgspec.json.decode(text.read(), type=list[msgspec.Raw])
            except msgspec.DecodeError as error:
                raise InvalidData(f"{part.source} is no JSON array: {error}", remedy="Mend the file.") from None
        for start in range(0, len(entries), rows):
            yield b"\n".join(bytes(entry).replace(b"\n", b" ") for entry in entries[start : start + rows])

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source. A name that a row lacks is null there."""
        import polars as pl

        hive = self.files.hive.get(part.source, {})
        stored = [name for name in columns if name not in hive]
        types = {name: pl.Float64() if name in numbers else self.schema[name] for name in stored}
        schema = {**self.schema, **types}
        for block in self.blocks(part, rows):
            yield self.with_hive(_json_batch(block, types), part, columns, schema)


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


def _json_batch(block: bytes, types: Mapping[str, Any]) -> Batch:
    import polars as pl

    try:
        frame = pl.read_ndjson(block, infer_schema_length=None)
        missing = [pl.lit(None, kind).alias(name) for name, kind in types.items() if name not in frame.schema]
        frame = frame.with_columns(missing).select(list(types))
        if all(_fits(frame.schema[name], kind) for name, kind in types.items()):
            return Batch(frame.cast(dict(types)))  # type: ignore[arg-type]  # its keys may be names
    except pl.exceptions.PolarsError:
        pass
    rows: list[dict[str, Any]] = []
    refused = []
    for place, line in enumerate(line for line in block.split(b"\n") if line.strip()):
        row, reason = _json_row(line, types)
        rows.append(row)
        if reason:
            refused.append(Refusal(place, reason))
    return Batch(pl.DataFrame(rows, schema=dict(types), strict=False), refused)


def _objects(block: bytes) -> list[dict[str, Any]]:
    """The lines that are objects."""
    found = []
    for line in block.split(b"\n"):
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
    return found


def _json_row(line: bytes, types: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        return {}, f"the line is no JSON: {error}"
    if not isinstance(row, dict):
        return {}, "the line is no JSON object"
    for name, kind in types.items():
        value = row.get(name)
        if kind.is_numeric() and not isinstance(value, int | float | None):
            return {}, _ill_typed(name, value, "a number")
        if kind.is_integer() and isinstance(value, float):
            return {}, _ill_typed(name, value, "a whole number")
        if kind == "String" and not isinstance(value, str | None):
            return {}, _ill_typed(name, value, "a text")
    return {name: row.get(name) for name in types}, ""


def _cast(texts: pl.DataFrame, types: Mapping[str, Any], refused: list[Refusal]) -> Batch:
    """Texts in the types wanted; what is none of them is refused."""
    known = {one.place for one in refused}
    frame = texts.select(_parsed(name, kind) for name, kind in types.items())
    for name, kind in types.items():
        lost = (frame[name].is_null() & texts[name].is_not_null()).arg_true().to_list()
        refused += [
            Refusal(place, _ill_typed(name, texts[name][place], _said(kind))) for place in lost if place not in known
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


def _ill_typed(name: str, value: object, wanted: str) -> str:
    shown = msgspec.json.encode(value)[:60].decode(errors="replace")
    return f"column {name!r} is {shown}, not {wanted}"


def _fits(given: Any, wanted: Any) -> bool:
    if wanted.is_numeric():
        return str(given).startswith(_NUMERIC)
    return given == wanted or str(given) == "Null"


def _is_padded(texts: pl.Series) -> bool:
    return bool(texts.str.contains(r"^[+-]?0\d").any())
