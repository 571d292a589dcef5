"""The elements of one long JSON array, a few at a time: cut at its commas, whatever stands in strings."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 22
_LONGEST_ELEMENT_BYTES = 1 << 27
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_QUOTE, _COMMA, _CLOSING = ord('"'), ord(","), ord("]")
_STEPS = np.zeros(256, np.int64)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_IS_SIGN = _STEPS != 0
_IS_SIGN[_COMMA] = True


class NoArray(Exception):
    """Why a text is no array."""


@dataclass(slots=True)
class _Place:
    """Between two chunks: how many brackets are open, and whether a string is."""

    depth: int = 0
    is_inside: bool = False


def array_lines(text: IO[bytes], rows: int) -> Iterator[bytes]:
    """The elements as lines, in blocks of ``rows``. ``text`` begins with the array, a byte order mark before it or not.

    What an element is like is not looked at. Raises NoArray where the array is not closed, and the like.
    """
    found: list[bytes] = []
    for element in _elements(text):
        found.append(element.replace(b"\n", b" "))
        if len(found) == rows:
            yield b"\n".join(found)
            found = []
    if found:
        yield b"\n".join(found)


def _elements(text: IO[bytes]) -> Iterator[bytes]:
    place, held, scanned, count = _Place(), bytearray(), 0, 0
    while chunk := text.read(_CHUNK_BYTES):
        held += chunk
        ends, scanned = _ends(held, scanned, place)
        if not ends and len(held) > _LONGEST_ELEMENT_BYTES:
            raise NoArray(f"element {count} has no end within {_LONGEST_ELEMENT_BYTES:,} bytes")
        start = 0
        for end in ends:
            element = bytes(held[start:end]).strip()
            if count == 0:
                # Behind the bracket that opens the array.
                element = element.removeprefix(codecs.BOM_UTF8).lstrip()[1:].lstrip()
            start, is_last = end + 1, held[end] != _COMMA
            if element:
                yield element
            elif count or not is_last:
                raise NoArray(f"element {count} is missing")
            count += 1
            if is_last:
                _check_nothing_follows(bytes(held[start:]), text)
                return
        del held[:start]
        scanned -= start
    raise NoArray(f"it ends within element {count}")


def _ends(held: bytearray, scanned: int, place: _Place) -> tuple[list[int], int]:
    """Where elements end in what was not scanned yet, and up to where it now is. ``place`` is moved there."""
    fresh = _ESCAPED.sub(b"__", bytes(held[scanned:]))
    if fresh.endswith(b"\\"):  # what it escapes is still to come
        fresh = fresh[:-1]
    signs = np.frombuffer(fresh, np.uint8)
    quotes = np.flatnonzero(signs == _QUOTE)
    places: NDArray[np.int64] = np.flatnonzero(_IS_SIGN[signs])
    places = places[(np.searchsorted(quotes, places) + place.is_inside) % 2 == 0]
    depths = place.depth + np.cumsum(_STEPS[signs[places]])
    closed = np.flatnonzero(depths == 0)
    if len(closed):
        places, depths = places[: closed[0] + 1], depths[: closed[0] + 1]
        if signs[places[-1]] != _CLOSING:
            raise NoArray("it is closed by another bracket than it is opened by")
    is_end = (depths == 0) | ((depths == 1) & (signs[places] == _COMMA))
    place.depth = int(depths[-1]) if len(depths) else place.depth
    place.is_inside = bool((len(quotes) + place.is_inside) % 2)
    return (places[is_end] + scanned).tolist(), scanned + len(fresh)


def _check_nothing_follows(rest: bytes, text: IO[bytes]) -> None:
    while not rest.strip():
        if not (rest := text.read(_CHUNK_BYTES)):
            return
    raise NoArray(f"something stands behind it: {rest.strip()[:40]!r}")
