"""How many processors this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

WORKERS_VARIABLE = "NORIA_GATEWAY_WORKERS"
"""Set for each of several processes that share a machine: how many there are."""
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def processors() -> int:
    """Those it may run on, no more than its container is given time of; its share where several processes work.

    At least one.
    """
    share = int(os.environ.get(WORKERS_VARIABLE, "1"))
    return max(1, int(min(_allowed(), _given_time_of())) // share)


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _given_time_of() -> float:
    """A container's limit: so many microseconds of processor time in a period of so many."""
    with suppress(OSError, ValueError):
        time, period = _QUOTA.read_text().split()
        return float(time) / float(period)  # "max" where there is no limit
    return float("inf")
