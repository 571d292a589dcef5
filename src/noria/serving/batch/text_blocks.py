"""Texts of one record a line, cut at the ends of records: CSV, where quotes may hold line ends, and JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 22
_NEWLINE, _QUOTE = ord("\n"), ord('"')


def record_blocks(text: IO[bytes], rows: int, *, quoted: bool, size: int | None = None) -> Iterator[tuple[bytes, int]]:
    """The next ``size`` bytes (all by default) as blocks of ``rows`` records, the last of fewer; and how many each has.

    ``quoted``: a line end between quotes (doubled ones do not count) is part of its record, as RFC 4180 has it.
    """
    held, ends, odd, left = bytearray(), np.empty(0, np.int64), 0, size
    while True:
        chunk = text.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        if left is not None:
            left -= len(chunk)
        if chunk:
            found, odd = _ends(chunk, odd, quoted)
            ends = np.concatenate([ends, found + len(held)])
            held += chunk
        while len(ends) >= rows:
            cut = int(ends[rows - 1])
            yield bytes(held[:cut]), rows
            del held[:cut]
            ends = ends[rows:] - cut
        if not chunk:
            break
    if held:
        yield bytes(held), len(ends) + (not held.endswith(b"\n"))


def _ends(chunk: bytes, odd: int, quoted: bool) -> tuple[NDArray[np.int64], int]:
    """Where records of a chunk end, and whether it ends within quotes; ``odd``: it begins within them."""
    signs = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero(signs == _NEWLINE)
    quotes = np.flatnonzero(signs == _QUOTE) if quoted else np.empty(0, np.int64)
    if len(quotes) or odd:
        before = np.searchsorted(quotes, ends) + odd
        ends = ends[before % 2 == 0]
    return ends + 1, (len(quotes) + odd) % 2
