"""Rows out of text files, by byte ranges that end where records do.

A block of lines is read at once when all its values fit; else value by value, to say which row does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import msgspec

from noria.errors import InvalidData
from noria.serving.batch.files import InputFiles
from noria.serving.batch.parts import Batch, Listed, Part
from noria.serving.batch.text_blocks import EndlessRecord, record_blocks

if TYPE_CHECKING:
    import polars as pl

SAMPLED_ROWS = 10_000
_PLANNED_ROWS = 65_536


@dataclass(frozen=True)
class TextRows:
    """What CSV and JSON lines have in common. ``texts`` are columns that are texts whatever they look like."""

    files: InputFiles
    texts: Sequence[str] = field(default=())

    typed = False
    quoted = False

    def number_type(self, name: str) -> pl.DataType:
        """See Source: whatever the first rows hold."""
        import polars as pl

        del name
        return pl.Float64()

    def shown(self, name: str) -> str:
        """See Source."""
        return self.files.shown(name)

    def listing(self) -> Sequence[Listed]:
        """See Source."""
        return self.files.files

    def parts(self, rows: int) -> Sequence[Part]:
        """See Source. Local files are read once to find where records end; one that is compressed, or that lies in
        an object store, is one part."""
        found: list[Part] = []
        for listed in self.files.files:
            if not listed.size:
                continue
            if self.files.root != "/" or self.files.is_packed(listed.name) or self.is_one_document(listed.name):
                found.append(Part(len(found), listed.name, (0, None)))
            else:
                found += self._cut(listed.name, rows, len(found))
        return found

    def is_one_document(self, name: str) -> bool:
        """Whether a file cannot be cut."""
        del name
        return False

    def pass_header(self, name: str, text: IO[bytes]) -> int:
        """Read what stands before a file's rows; returns how many bytes that are."""
        del name, text
        return 0

    def separator(self, name: str) -> str:
        """What stands between the values of a file, where quotes open."""
        del name
        return ","

    def _cut(self, name: str, rows: int, number: int) -> Iterator[Part]:
        with self.files.open(name) as text:
            start = end = self.pass_header(name, text)
            first = reached = 0
            for block, count in self.records(name, text, min(rows, _PLANNED_ROWS)):
                end, reached = end + len(block), reached + count
                if reached - first >= rows:
                    yield Part(number, name, (start, end), reached - first, first)
                    number, start, first = number + 1, end, reached
            if reached > first:
                yield Part(number, name, (start, end), reached - first, first)

    def blocks(self, part: Part, rows: int) -> Iterator[bytes]:
        """The part's records as blocks of lines."""
        with self.files.open(part.source) as text:
            start, end = part.span
            if end is None:
                self.pass_header(part.source, text)
            else:
                text.seek(start)
            size = None if end is None else end - start
            for block, _ in self.records(part.source, text, rows, size):
                yield block

    def records(self, name: str, text: IO[bytes], rows: int, size: int | None = None) -> Iterator[tuple[bytes, int]]:
        """A file's records from here on, as ``record_blocks`` gives them. Raises InvalidData for one without an end."""
        try:
            yield from record_blocks(text, rows, quoted=self.quoted, separator=self.separator(name), size=size)
        except EndlessRecord as error:
            raise InvalidData(
                f"{self.shown(name)}: row {error.row} {error}",
                details=["what stands behind it would be part of it"],
                remedy="Mend the file, and read it to its end where it was copied.",
            ) from None

    def with_hive(self, batch: Batch, part: Part, columns: Sequence[str], schema: Mapping[str, Any]) -> Batch:
        """The batch with what its file's folders say."""
        import polars as pl

        hive = self.files.hive.get(part.source, {})
        added = [pl.lit(hive[name], schema[name]).alias(name) for name in columns if name in hive]
        return Batch(batch.frame.with_columns(added).select(columns), batch.refused)


def ill_typed(name: str, value: object, wanted: str) -> str:
    """Why a value is refused."""
    shown = msgspec.json.encode(value, enc_hook=str)[:60].decode(errors="replace")
    return f"column {name!r} is {shown}, not {wanted}"
