"""The clock everyone is handed: UTC, and movable when history is replayed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Anything that can say what time it is, in UTC."""

    def now(self) -> datetime:
        """The current instant, timezone-aware in UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ReplayClock:
    """A clock that stands still until it is moved, for replays and tests."""

    def __init__(self, start: datetime) -> None:
        self._now = as_utc(start)

    def now(self) -> datetime:
        return self._now

    def move_to(self, instant: datetime) -> None:
        """Set the time; a replay may resume at an earlier point, so going back is allowed."""
        self._now = as_utc(instant)


def as_utc(instant: datetime) -> datetime:
    """The same instant in UTC; a naive one is taken to be UTC already."""
    zone = instant.tzinfo
    return instant if zone is UTC else instant.replace(tzinfo=UTC) if zone is None else instant.astimezone(UTC)


def to_millis(instant: datetime) -> int:
    """Milliseconds since 1970-01-01T00:00Z."""
    return round(as_utc(instant).timestamp() * 1000)


def from_millis(millis: int) -> datetime:
    """The UTC instant ``millis`` milliseconds after 1970-01-01T00:00Z."""
    return datetime.fromtimestamp(millis / 1000, UTC)


def iso(instant: datetime) -> str:
    """RFC 3339 in UTC with a ``Z``, to the second or finer when needed."""
    return as_utc(instant).isoformat().replace("+00:00", "Z")
