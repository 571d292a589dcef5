"""The point-in-time join's definition as plain loops: slow, and easy to believe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

Row = Mapping[str, Any]


def newest(
    rows: Sequence[Row],
    keys: Mapping[str, Any],
    at: datetime,
    *,
    ttl: timedelta | None = None,
    as_of: str = "known",
) -> Row | None:
    """The row an entity sees at a time; ``keys`` are its join keys, ``rows`` in the order of their source."""
    best: Row | None = None
    for row in rows:
        if any(value is None or row[key] != value for key, value in keys.items()):
            continue
        event, created = row["event_timestamp"], row["created_timestamp"] or row["event_timestamp"]
        if event > at or (as_of == "known" and created > at) or (ttl is not None and at - event > ttl):
            continue
        if best is None or (event, created) >= (
            best["event_timestamp"],
            best["created_timestamp"] or best["event_timestamp"],
        ):
            best = row
    return best
