"""What a server that takes large requests asks of the C library, so that they don't stay in its size.

Of glibc alone: elsewhere nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8
"""The option's number in glibc's malloc.h."""


def keep_one_arena() -> None:
    """Have all threads get their memory from one place: what one has freed is not lost to the others."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what is free to the system, for a few milliseconds in which nobody gets any.

    By itself, glibc returns only what lies at the end, and loading a model leaves as much free as the model takes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
