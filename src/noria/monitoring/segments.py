"""Segments: append-only files of checksummed frames, one folder a day, that a killed writer can only tear at the end.

Each process writes segments of its own; readers stop at a torn frame, which is the last of its segment.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

MILLIS_A_DAY = 86_400_000

_FRAME = struct.Struct("<II")
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_OPEN_DAYS = 8
_LARGEST_BYTES = 128 * 2**20


class SegmentWriter:
    """Appends frames to the day they belong to, in segments of limited size. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handles: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()

    def append(self, day: int, payload: bytes) -> None:
        """Write one frame with one system call; ``day`` counts from 1970. Raises OSError when the disk is full."""
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        with self._lock:
            if self._sizes.get(day, 0) > _LARGEST_BYTES:
                os.close(self._handles.pop(day))
            handle = self._handles.get(day)
            _write_whole(self._open(day) if handle is None else handle, frame)
            self._sizes[day] += len(frame)

    def close(self) -> None:
        """Close the open segments."""
        with self._lock:
            self._close_all()

    def _open(self, day: int) -> int:
        if len(self._handles) >= _OPEN_DAYS:
            self._close_all()
        path = self._folder / day_name(day) / f"{time.time_ns():020d}-{os.getpid()}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handles[day] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._sizes[day] = 0
        return self._handles[day]

    def _close_all(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}


def _write_whole(handle: int, frame: bytes) -> None:
    """All of ``frame`` or nothing: readers stop at a torn frame, so none may stand before a whole one."""
    written = os.write(handle, frame)
    if written < len(frame):
        os.ftruncate(handle, os.fstat(handle).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def segments(folder: Path, day: date | None = None) -> list[Path]:
    """The segments of one day, or of all, oldest first."""
    return sorted(folder.glob(f"{'*' if day is None else day.isoformat()}/*.log"))


def frames(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Every whole frame's payload, after the offset at which the next one starts."""
    offset = 0
    while offset + _FRAME.size <= len(content):
        length, checksum = _FRAME.unpack_from(content, offset)
        payload = content[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        offset += _FRAME.size + length
        yield offset, payload


def day_name(day: int) -> str:
    """The folder of a day counted from 1970: YYYY-MM-DD."""
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()
