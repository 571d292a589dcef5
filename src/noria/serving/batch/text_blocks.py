"""Texts of one record a line, cut at the ends of records: CSV, where quotes may hold line ends, and JSON lines.

As RFC 4180 has it, a line end between quotes is part of its record, and two quotes within quotes are one. A quote
within a value that does not begin with one (it"s) is a character like others.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 22
_LONGEST_RECORD_BYTES = 1 << 27
"""A longer one is none: what is between two line ends, or behind a quote that opens by mistake, fills the memory."""
_AS_COMMAS = bytes.maketrans(b";\t|", b",,,")
_NEWLINE, _QUOTE = ord("\n"), ord('"')


class EndlessRecord(Exception):
    """A record whose end is not found; ``row`` is its number, counted from 0 where the blocks begin."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


@dataclass(slots=True)
class _Place:
    """Between two chunks: within quotes or not, and whether a quote would open a value here. ``separator`` stands
    between values."""

    separator: int
    is_inside: bool = False
    may_open: bool = True


def record_blocks(
    text: IO[bytes], rows: int, *, quoted: bool, separator: str = ",", size: int | None = None
) -> Iterator[tuple[bytes, int]]:
    """The next ``size`` bytes (all by default) as blocks of ``rows`` records, the last of fewer; and how many each has.

    ``quoted`` says whether quotes may hold line ends; they open behind a ``separator``. Raises EndlessRecord.
    """
    held, ends, place, left = bytearray(), np.empty(0, np.int64), _Place(ord(separator)), size
    yielded = 0
    while True:
        chunk = text.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        if left is not None:
            left -= len(chunk)
        if chunk:
            ends = np.concatenate([ends, _ends(chunk, place, quoted) + len(held)])
            held += chunk
        while len(ends) >= rows:
            cut = int(ends[rows - 1])
            yield bytes(held[:cut]), rows
            del held[:cut]
            ends = ends[rows:] - cut
            yielded += rows
        if not chunk:
            break
        if len(held) - (ends[-1] if len(ends) else 0) > _LONGEST_RECORD_BYTES:
            raise EndlessRecord(yielded + len(ends), f"has no end within {_LONGEST_RECORD_BYTES:,} bytes")
    if place.is_inside:
        raise EndlessRecord(yielded + len(ends), "opens a quote that is never closed")
    if held:
        yield bytes(held), len(ends) + (not held.endswith(b"\n"))


def first_record(text: IO[bytes]) -> bytes:
    """The first record of CSV, with its line end, before it is known what stands between values. Raises
    EndlessRecord."""
    record, place = bytearray(), _Place(ord(","))
    while line := text.readline(_LONGEST_RECORD_BYTES):
        seen = line if record else line.removeprefix(codecs.BOM_UTF8)
        record += line
        if seen:
            _ends(seen.translate(_AS_COMMAS), place, quoted=True)
        if not place.is_inside:
            break
        if len(record) > _LONGEST_RECORD_BYTES:
            raise EndlessRecord(0, f"has no end within {_LONGEST_RECORD_BYTES:,} bytes")
    if place.is_inside:
        raise EndlessRecord(0, "opens a quote that is never closed")
    return bytes(record)


def records_of(block: bytes, separator: str = ",") -> list[bytes]:
    """The records of a block of CSV, with their line ends."""
    ends = [0, *_ends(block, _Place(ord(separator)), quoted=True).tolist()]
    if ends[-1] != len(block):
        ends.append(len(block))
    return [block[start:end] for start, end in pairwise(ends)]


def _ends(chunk: bytes, place: _Place, quoted: bool) -> NDArray[np.int64]:
    """Where records of a chunk end. ``place`` is moved to the chunk's end."""
    signs = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero(signs == _NEWLINE)
    if not quoted:
        return ends + 1
    quotes = _quotes(signs, place)
    if len(quotes) or place.is_inside:
        before = np.searchsorted(quotes, ends) + place.is_inside
        ends = ends[before % 2 == 0]
    place.is_inside = bool((len(quotes) + place.is_inside) % 2)
    place.may_open = signs[-1] in (place.separator, _NEWLINE) or (len(quotes) > 0 and quotes[-1] == len(signs) - 1)
    return ends + 1


def _quotes(signs: NDArray[np.uint8], place: _Place) -> NDArray[np.int64]:
    """Where quotes begin or end a value, or a further piece of it behind a doubled one."""
    quotes = np.flatnonzero(signs == _QUOTE)
    if not len(quotes):
        return quotes
    before = signs[quotes - 1]
    may_open = (before == place.separator) | (before == _NEWLINE)
    if quotes[0] == 0:
        may_open[0] = place.may_open
    doubled = np.diff(quotes, prepend=-2) == 1
    if (may_open | doubled)[int(place.is_inside) :: 2].all():
        return quotes
    return _without_plain(quotes, may_open, place.is_inside)


def _without_plain(quotes: NDArray[np.int64], may_open: NDArray[np.bool_], is_inside: bool) -> NDArray[np.int64]:
    """The quotes without those that are characters like others: what is a quote's part depends on all before it."""
    found: list[int] = []
    for quote, opens in zip(quotes.tolist(), may_open.tolist(), strict=True):
        if is_inside or opens or (found and found[-1] == quote - 1):
            found.append(quote)
            is_inside = not is_inside
    return np.array(found, dtype=np.int64)
