"""Replay: history played as live traffic, hour by hour, with the wheel turning at the end of every day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import msgspec

from noria.clock import ReplayClock, from_millis, iso, to_millis
from noria.features import OnlineFeatures
from noria.features.online import visible_between
from noria.lifecycle.traffic import Outcome, Traffic
from noria.lifecycle.wheel import Wheel
from noria.pipelines import Journal

if TYPE_CHECKING:
    import polars as pl

_HOUR_MILLIS = 3_600_000
OnDay = Callable[[date, Outcome], None]
EndOfDay = Callable[[date], None]
RouteReady = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Hour:
    """What happens in one hour: requests, then the labels that became known in it."""

    start: datetime
    requests: Sequence[bytes]
    labels: Sequence[dict[str, object]]


class Replay:
    """Plays the events of [``since``, ``until``) against a gateway.

    Features are materialized on every full hour, labels are sent in the hour they became known. A day is journaled in
    two steps, traffic and turn, so that a replay cut short goes on where it stopped.
    """

    def __init__(self, wheel: Wheel, clock: ReplayClock, journal: Journal, *, since: datetime, until: datetime):
        self._wheel = wheel
        self._clock = clock
        self._journal = journal
        self._since, self._until = since, until
        project = wheel.project
        self._views = [(view, view.load()) for view in project.views]
        self._events = _events(project.observations.load(), wheel, since, until)

    def play(self, gateway: str, *, route_ready: RouteReady, end_of_day: EndOfDay, on_day: OnDay) -> Outcome:
        """Play every day not yet journaled; returns what was sent over all of it.

        ``route_ready(revision)`` returns once the gateway serves that revision; ``end_of_day`` runs before the turn.
        """
        total = Outcome(0, 0)
        self._online: OnlineFeatures | None = None
        for day in self._days():
            if self._online is None and f"traffic:{day}" not in self._journal.results():
                self._online = self._materialize_until(day)
            outcome = self._day(day, gateway, route_ready, end_of_day)
            total += outcome
            on_day(day, outcome)
        return total

    def _day(self, day: date, gateway: str, route_ready: RouteReady, end_of_day: EndOfDay) -> Outcome:
        def traffic() -> dict[str, object]:
            route_ready(self._wheel.publish_routes())
            outcome = asyncio.run(self._send_day(day, gateway))
            return {"sent": outcome.sent, "failed": outcome.failed, "first_failure": outcome.first_failure}

        def turn() -> dict[str, object]:
            end_of_day(day)
            self._wheel.turn(day)
            return {}

        self._clock.move_to(_start_of(day))
        found = self._journal.step(f"traffic:{day}", traffic)
        self._clock.move_to(_start_of(day) + timedelta(days=1))
        self._journal.step(f"turn:{day}", turn)
        return Outcome(int(str(found["sent"])), int(str(found["failed"])), str(found["first_failure"]))

    async def _send_day(self, day: date, gateway: str) -> Outcome:
        traffic = Traffic(gateway)
        await traffic.open()
        outcome = Outcome(0, 0)
        try:
            for hour in self._hours(day):
                self._materialize(hour.start - timedelta(hours=1), hour.start)
                outcome += await traffic.post("/predict", hour.requests)
                if hour.labels:
                    outcome += await traffic.post("/labels", [msgspec.json.encode({"labels": hour.labels})])
        finally:
            await traffic.close()
        return outcome

    def _materialize_until(self, day: date) -> OnlineFeatures:
        """Empty online features filled as known when ``day`` began: nothing of a day cut short stays."""
        self._wheel.workspace.open_online(fresh=True).close()
        self._online = OnlineFeatures(self._wheel.workspace.open_online())
        self._materialize(None, _start_of(day) - timedelta(hours=1))
        return self._online

    def _materialize(self, since: datetime | None, until: datetime) -> None:
        assert self._online is not None
        for view, rows in self._views:
            fresh = visible_between(rows, since, until)
            if fresh.height:
                self._online.materialize(view, fresh)

    def _days(self) -> Iterator[date]:
        for offset in range((self._until - self._since).days):
            yield (self._since + timedelta(days=offset)).date()

    def _hours(self, day: date) -> Iterator[_Hour]:
        import polars as pl

        begin = to_millis(_start_of(day))
        requests = self._events.filter(pl.col("at").is_between(begin, begin + 24 * _HOUR_MILLIS, closed="left"))
        labels = self._events.filter(pl.col("known").is_between(begin, begin + 24 * _HOUR_MILLIS, closed="left"))
        for start in range(begin, begin + 24 * _HOUR_MILLIS, _HOUR_MILLIS):
            now = pl.col("at").is_between(start, start + _HOUR_MILLIS, closed="left")
            known = pl.col("known").is_between(start, start + _HOUR_MILLIS, closed="left")
            yield _Hour(
                from_millis(start),
                [self._request(row) for row in requests.filter(now).iter_rows(named=True)],
                [_label(row) for row in labels.filter(known).iter_rows(named=True)],
            )

    def _request(self, row: dict[str, object]) -> bytes:
        project = self._wheel.project
        keys = {key for view in project.views for key in view.entity.join_keys}
        return msgspec.json.encode(
            {
                "prediction_id": row["id"],
                "event_time": iso(from_millis(int(str(row["at"])))),
                "entities": {key: row[key] for key in sorted(keys)},
                "features": {name: row[name] for name in project.observations.request_columns},
            }
        )


def _events(rows: pl.DataFrame, wheel: Wheel, since: datetime, until: datetime) -> pl.DataFrame:
    import polars as pl

    table = wheel.project.observations
    event = pl.col(table.event_time)
    return rows.filter(event.is_between(since, until, closed="left")).with_columns(
        id=pl.col(table.key).cast(pl.String),
        at=event.dt.epoch("ms"),
        known=pl.when(pl.col(table.label).is_not_null()).then(pl.col(table.label_time).dt.epoch("ms")),
        outcome=pl.col(table.label).cast(pl.Float64),
    )


def _label(row: dict[str, object]) -> dict[str, object]:
    return {
        "prediction_id": row["id"],
        "event_time": iso(from_millis(int(str(row["at"])))),
        "observed_at": iso(from_millis(int(str(row["known"])))),
        "label": row["outcome"],
    }


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
