"""Rows out of JSON: lines, or one array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from noria.errors import InvalidData
from noria.serving.batch.parts import Batch, Part, Refusal
from noria.serving.batch.texts import SAMPLED_ROWS, TextRows, ill_typed

if TYPE_CHECKING:
    import polars as pl

_SCANNED_BYTES = 1 << 18
_NUMERIC = ("Int", "UInt", "Float", "Boolean", "Null", "Decimal")


@dataclass(frozen=True)
class JsonRows(TextRows):
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
        block = next(self.blocks(part, SAMPLED_ROWS), b"")
        try:
            frame = pl.read_ndjson(block, infer_schema_length=None)
        except pl.exceptions.PolarsError:
            frame = pl.DataFrame(_objects(block), infer_schema_length=None, strict=False)
        if not frame.width:
            raise InvalidData(f"{part.source} holds no JSON objects", remedy="Name another --input-format.")
        found = {one: pl.String() if one in self.texts else kind for one, kind in frame.schema.items()}
        return {**found, **self.files.hive_types}

    def blocks(self, part: Part, rows: int) -> Iterator[bytes]:
        """See TextRows; an array as the lines it could have been."""
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
            return {}, ill_typed(name, value, "a number")
        if kind.is_integer() and isinstance(value, float):
            return {}, ill_typed(name, value, "a whole number")
        if kind == "String" and not isinstance(value, str | None):
            return {}, ill_typed(name, value, "a text")
    return {name: row.get(name) for name in types}, ""


def _fits(given: Any, wanted: Any) -> bool:
    if wanted.is_numeric():
        return str(given).startswith(_NUMERIC)
    return given == wanted or str(given) == "Null"
