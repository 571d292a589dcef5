"""The stamp every online row begins with: when it was true, then when it was known; later stamps are greater bytes."""

from __future__ import annotations

import struct

STAMP_BYTES = 16
SIGN = 1 << 63
"""Added to UTC microseconds, so that unsigned big-endian bytes are in the order of time, before 1970 too."""

_TWO = struct.Struct(">QQ")


def pack_stamp(event_micros: int, created_micros: int) -> bytes:
    """The stamp of a row, from UTC microseconds."""
    return _TWO.pack(event_micros + SIGN, created_micros + SIGN)


def unpack_stamp(value: bytes) -> tuple[int, int]:
    """The (event, created) UTC microseconds ``value`` begins with."""
    event, created = _TWO.unpack_from(value)
    return event - SIGN, created - SIGN
