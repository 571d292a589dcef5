"""Files that are compressed as a whole: told by their first bytes, whatever their names, and read decompressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from noria.errors import InvalidData

_ENDINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".lz4": "lz4"}
_BEGINNINGS = {
    "gzip": rb"\x1f\x8b",
    "bzip2": rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",  # also of nothing
    "xz": rb"\xfd7zXZ\x00",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",  # also where a frame to be skipped goes ahead
    "lz4": rb"\x04\x22\x4d\x18",
}
"""None of them begins a text in UTF-8."""
_LOOKED_BYTES = 16
_BUFFER_BYTES = 1 << 20
_OPENING: dict[str, Callable[[Any], IO[bytes]]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}  # type: ignore[dict-item]


def packing_named(name: str) -> str:
    """How a file is compressed by its name; empty for one that is not."""
    return next((kind for ending, kind in _ENDINGS.items() if name.lower().endswith(ending)), "")


def without_packing(name: str) -> str:
    """The name of what is in a file, in small letters."""
    plain = name.lower()
    return next((plain.removesuffix(ending) for ending in _ENDINGS if plain.endswith(ending)), plain)


def is_packed(file: IO[bytes]) -> bool:
    """Whether a file is compressed, by its first bytes, which are read."""
    return bool(_begun(file.read(_LOOKED_BYTES)))


@contextmanager
def unpacked(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """What a file holds, decompressed. ``name`` is the file's address.

    Raises InvalidData where it is damaged, cut off, or not what its name says.
    """
    first = file.read(_LOOKED_BYTES)
    file.seek(0)
    named, kind = packing_named(name), _begun(first)
    if not kind:
        if named and first:
            raise _damaged(name, named, f"it begins with {first[:6]!r}")
        yield file
        return
    try:
        with _opened(kind, file) as content:
            yield content
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(name, kind, error) from None
    except OSError as error:
        if error.errno is not None:  # of the disk below
            raise
        raise _damaged(name, kind, error) from None


def _begun(first: bytes) -> str:
    return next((kind for kind, beginning in _BEGINNINGS.items() if re.match(beginning, first)), "")


def _opened(kind: str, file: IO[bytes]) -> IO[bytes]:
    if kind in _OPENING:
        return _OPENING[kind](file)
    import pyarrow  # which tells a file that is cut off, as zstandard does not

    content: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), kind)
    return io.BufferedReader(content, _BUFFER_BYTES)


def _damaged(name: str, kind: str, why: object) -> InvalidData:
    return InvalidData(f"{name} is damaged {kind}: {why}", remedy="Compress it anew.")
