"""Rows out of JSON: lines, or one array."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from noria.errors import InvalidData
from noria.serving.batch.json_arrays import NoArray, array_lines
from noria.serving.batch.parts import Batch, Part, Refusal
from noria.serving.batch.texts import SAMPLED_ROWS, TextRows, ill_typed

if TYPE_CHECKING:
    import polars as pl

_SCANNED_BYTES = 1 << 18
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Why bytes are not read; the last one of what is nested too deep."""
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True)
class JsonRows(TextRows):
    """Rows of JSON: an object a line, or one array of objects.

    The first file's first rows say what a column holds. One of texts holds nothing else, unless ``texts`` names it or
    it is null in all of these: it then takes whatever there is, as JSON.
    """

    def is_one_document(self, name: str) -> bool:
        """Whether it is an array."""
        with self.files.open(name) as text:
            return text.read(_SCANNED_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        return {**{name: _kept_as(kind) for name, kind in self._sampled.items()}, **self.files.hive_types}

    @cached_property
    def _sampled(self) -> Mapping[str, pl.DataType]:
        """The types in the first rows: null for what may hold anything."""
        import polars as pl

        part = Part(0, self.files.first_filled(), (0, None))
        block = next(self.blocks(part, SAMPLED_ROWS), b"")
        try:
            found: Mapping[str, pl.DataType] = pl.read_ndjson(block, infer_schema_length=None).schema
        except pl.exceptions.PolarsError:
            found = _types(_objects(block))
        if not found:
            raise InvalidData(
                f"{self.shown(part.source)} holds no JSON objects, neither one a line nor an array of them",
                remedy="Write each object on a line of its own, or name another --input-format.",
            )
        return {name: pl.Null() if name in self.texts else kind for name, kind in found.items()}

    def blocks(self, part: Part, rows: int) -> Iterator[bytes]:
        """See TextRows; an array as the lines it could have been."""
        if part.span[1] is not None or not self.is_one_document(part.source):
            for place, block in enumerate(super().blocks(part, rows)):
                yield block if place or part.span[0] else block.removeprefix(codecs.BOM_UTF8)
            return
        with self.files.open(part.source) as text:
            try:
                yield from array_lines(text, rows)
            except NoArray as error:
                raise InvalidData(
                    f"{self.shown(part.source)} is no JSON array: {error}",
                    remedy="Mend the file, or read it to its end where it was copied.",
                ) from None

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source. A name that a row lacks is null there."""
        import polars as pl

        hive = self.files.hive.get(part.source, {})
        stored = [name for name in columns if name not in hive]
        types = {name: pl.Float64() if name in numbers else self._sampled[name] for name in stored}
        schema = {**self.schema, **{name: _kept_as(kind) for name, kind in types.items()}}
        lines = _Lines(types)
        for block in self.blocks(part, rows):
            yield self.with_hive(lines.batch(block), part, columns, schema)


class _Lines:
    """Reads lines as rows of some types: all at once, or, where one does not fit, each by itself, to the same end."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types, self._fields = types, [f"f{place}" for place in range(len(types))]
        self._row = msgspec.defstruct(
            "Row",
            [(field, _taken(kind), None) for field, kind in zip(self._fields, types.values(), strict=True)],
            rename=dict(zip(self._fields, types, strict=True)),
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(self._row)

    def batch(self, block: bytes) -> Batch:
        """The lines of a block."""
        try:
            found = self._decoder.decode_lines(block)
            if self._all_fit(found):
                return Batch(self._frame(found))
        except _NO_JSON:
            pass
        rows: list[Any] = []
        refused = []
        for place, line in enumerate(line for line in block.split(b"\n") if line.strip()):
            row, reason, given = self._one(line)
            rows.append(row)
            if reason:
                refused.append(Refusal(place, reason, given))
        return Batch(self._frame(rows), refused)

    def _all_fit(self, rows: Sequence[Any]) -> bool:
        """Whether objects within the rows are as in the first ones: they are decoded whatever they hold."""
        columns = zip(self._types.values(), self._fields, strict=True)
        nested = [(kind, attrgetter(field)) for kind, field in columns if _has_objects(kind)]
        return all(_fits(value(row), kind) for kind, value in nested for row in rows)

    def _frame(self, rows: Sequence[Any]) -> pl.DataFrame:
        import polars as pl

        if not self._types:
            return pl.DataFrame(height=len(rows))
        columns = zip(self._types.items(), self._fields, strict=True)
        return pl.DataFrame(
            [_series(name, kind, list(map(attrgetter(field), rows))) for (name, kind), field in columns]
        )

    def _one(self, line: bytes) -> tuple[Any, str, dict[str, Any]]:
        """A row with the values that fit; the reason when one does not, and that one."""
        try:
            found = msgspec.json.decode(line)
        except _NO_JSON as error:
            return self._row(), f"the line is no JSON: {error}", {}
        if not isinstance(found, dict):
            return self._row(), "the line is no JSON object", {}
        values, reason, refused = {}, "", {}
        for (name, kind), field in zip(self._types.items(), self._fields, strict=True):
            value = found.get(name)
            given = int(value) if isinstance(value, bool) and kind.is_numeric() else value  # as over HTTP
            try:
                values[field] = _converted(given, kind)
            except msgspec.ValidationError:
                reason = reason or ill_typed(name, value, _said(kind))
                refused[name] = value
        return self._row(**values), reason, refused


def _converted(value: Any, kind: Any) -> Any:
    """A value of a column. Raises msgspec's ValidationError for one that does not fit."""
    found = msgspec.convert(value, _taken(kind))
    if _has_objects(kind) and not _fits(found, kind):
        raise msgspec.ValidationError
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Whether a nested value goes into a frame as it is: Polars would make null of what does not, or drop it."""
    import polars as pl

    if value is None:
        return True
    if isinstance(kind, pl.List) and _has_objects(kind):
        return isinstance(value, list) and all(_fits(one, kind.inner) for one in value)
    if isinstance(kind, pl.Struct):
        inner = {one.name: one.dtype for one in kind.fields}
        return isinstance(value, dict) and all(name in inner and _fits(one, inner[name]) for name, one in value.items())
    if kind == pl.Null:
        return False
    try:
        msgspec.convert(value, _taken(kind))
    except msgspec.ValidationError:
        return False
    return True


def _has_objects(kind: Any) -> bool:
    import polars as pl

    return isinstance(kind, pl.Struct) or (isinstance(kind, pl.List) and _has_objects(kind.inner))


def _taken(kind: Any) -> Any:
    """What a value of a column may be; of one with objects ``_fits`` says the rest."""
    import polars as pl

    if kind == pl.String:
        return str | None
    if kind == pl.Boolean:
        return bool | None
    if kind.is_integer():
        return _Int64 | None
    if isinstance(kind, pl.List):
        inner = None if kind.inner == pl.Null else _taken(kind.inner)
        return list[inner] | None  # type: ignore[valid-type]  # made for msgspec, not for mypy
    return float | None if kind.is_numeric() else Any


def _said(kind: Any) -> str:
    import polars as pl

    if kind == pl.String:
        return "a text"
    if kind == pl.Boolean:
        return "true or false"
    if kind.is_nested():
        return f"a value of the type {kind}, as in the first rows"
    return "a whole number of 64 bits" if kind.is_integer() else "a number"


def _kept_as(kind: Any) -> Any:
    """The type of a column in frames: Parquet has no integers of 128 bits."""
    import polars as pl

    return pl.String() if kind == pl.Null else pl.Int64() if kind == pl.Int128 else kind


def _series(name: str, kind: Any, values: list[Any]) -> pl.Series:
    import polars as pl

    if kind == pl.Null:
        values = [one if isinstance(one, str | None) else msgspec.json.encode(one).decode() for one in values]
    return pl.Series(name, values, dtype=_kept_as(kind), strict=not kind.is_nested())


def _types(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, pl.DataType]:
    """The types of the columns of objects; null for one of several kinds that have no type in common."""
    import polars as pl

    try:
        return pl.DataFrame(rows, infer_schema_length=None, strict=False).schema
    except (pl.exceptions.PolarsError, TypeError):
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: _type([row.get(name) for row in rows]) for name in names}


def _type(values: Sequence[Any]) -> pl.DataType:
    import polars as pl

    with suppress(pl.exceptions.PolarsError, TypeError):
        found = pl.DataFrame({"values": values}, infer_schema_length=None, strict=False).schema["values"]
        return pl.Null() if found == pl.Object else found
    return pl.Null()


def _objects(block: bytes) -> list[dict[str, Any]]:
    """The lines that are objects."""
    found = []
    for line in block.split(b"\n"):
        with suppress(*_NO_JSON):
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
    return found
