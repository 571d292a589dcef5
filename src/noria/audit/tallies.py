"""Tallies: how much was added of what, and a sum over the rows that shows when one of them is changed or lost.

The sum of the SHA-256 of every row, modulo 2^256, does not depend on the order in which many clients add them at once.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, MutableMapping

_MODULUS = 1 << 256
_NUMBERS = struct.Struct("<qqdB")

Counted = tuple[int, int]
"""How many rows, and their sum; of what has no sum, it is 0."""

Tally = Mapping[str, Mapping[str, Counted]]
"""Subject → kind of row → what was added."""

METRICS, PARAMS = "metrics", "params"


def of_metrics(rows: Iterable[tuple[str, int, int, float, int]]) -> Counted:
    """Of the (key, step, timestamp, value, is_nan) of metrics."""
    count, total = 0, 0
    sha256, pack, number = hashlib.sha256, _NUMBERS.pack, int.from_bytes
    for key, step, timestamp, value, is_nan in rows:  # 0.0 is added because databases do not keep the sign of zero
        total += number(sha256(key.encode() + pack(step, timestamp, value + 0.0, is_nan)).digest(), "little")
        count += 1
    return count, total % _MODULUS


def of_params(rows: Iterable[tuple[str, str]]) -> Counted:
    """Of the (key, value) of params."""
    digests = [hashlib.sha256(f"{key}\0{value}".encode()).digest() for key, value in rows]
    return len(digests), sum(int.from_bytes(digest, "little") for digest in digests) % _MODULUS


def less(counted: Counted) -> Counted:
    """What takes it back when it is added."""
    return -counted[0], -counted[1] % _MODULUS


def add(into: MutableMapping[str, dict[str, Counted]], tally: Tally) -> None:
    """Add a tally to another."""
    for subject, kinds in tally.items():
        mine = into.setdefault(subject, {})
        for kind, (count, total) in kinds.items():
            before = mine.get(kind, (0, 0))
            mine[kind] = before[0] + count, (before[1] + total) % _MODULUS


def written(tally: Tally) -> dict[str, object]:
    """As it is kept: [count, sum in hex], or the count alone."""
    return {
        subject: {kind: [count, f"{total:064x}"] if total else count for kind, (count, total) in kinds.items()}
        for subject, kinds in tally.items()
    }


def read(document: object) -> Tally:
    """What ``written`` wrote; nothing of anything else."""
    found: dict[str, dict[str, Counted]] = {}
    for subject, kinds in document.items() if isinstance(document, dict) else ():
        found[subject] = {
            kind: (counted, 0) if isinstance(counted, int) else (int(counted[0]), int(counted[1], 16))
            for kind, counted in kinds.items()
        }
    return found
