"""Structs that more than one thread may read."""

from __future__ import annotations

from typing import TypeVar

import msgspec

_Kind = TypeVar("_Kind")


def read_by_threads(kind: type[_Kind]) -> type[_Kind]:
    """Class decorator: have msgspec look at the fields now, in the thread that imports.

    It does so when a struct or dataclass is first decoded, and while it does, another thread that decodes the same one
    finds it half done: the process ends with a segmentation fault (msgspec 0.22).
    """
    msgspec.json.Decoder(kind)
    return kind
