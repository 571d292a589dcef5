"""Replay: history played as live traffic, hour by hour, with the wheel turning at the end of every day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import msgspec
import uvloop

from noria.clock import ReplayClock, to_millis
from noria.data.observations import Observations
from noria.features import OnlineFeatures
from noria.features.online import visible_at
from noria.lifecycle.traffic import Outcome, Traffic
from noria.lifecycle.wheel import Wheel
from noria.pipelines import Journal

if TYPE_CHECKING:
    import polars as pl

_BEGINNING = -(2**62)
_HOUR_MILLIS = 3_600_000
_RFC_3339 = "%Y-%m-%dT%H:%M:%S%.3fZ"
OnDay = Callable[[date, Outcome], None]
EndOfDay = Callable[[date], None]
RouteReady = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Hour:
    """What happens in one hour: requests, then the labels that became known in it."""

    start: int
    requests: Sequence[bytes]
    labels: Sequence[dict[str, object]]


class _Timeline:
    """Rows in the order of a moment (UTC milliseconds), cut by binary search: an hour of a year is looked up often."""

    def __init__(self, rows: pl.DataFrame, moment: pl.Expr) -> None:
        known = rows.with_columns(__moment=moment).filter(moment.is_not_null()).sort("__moment", maintain_order=True)
        self._moments = known["__moment"].to_numpy()
        self._rows = known.drop("__moment")

    def between(self, start: int, end: int) -> pl.DataFrame:
        """The rows of [``start``, ``end``)."""
        first, last = self._moments.searchsorted([start, end])
        return self._rows[int(first) : int(last)]


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
        self._views = [(view, _Timeline(view.load(project.folder), visible_at())) for view in project.views]
        self._requests, self._labels = self._timelines(project.observations, since, until)
        self._keys = sorted(
            {one.join_key_map.get(key, key) for one in project.plan.lookups for key in one.view.join_keys}
        )
        self._sent = (*project.request_columns, *project.sent_beside)

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
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome = runner.run(self._send_day(day, gateway))
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
                self._materialize(hour.start - _HOUR_MILLIS, hour.start)
                outcome += await traffic.post("/predict", hour.requests)
                if hour.labels:
                    outcome += await traffic.post("/labels", [msgspec.json.encode({"labels": hour.labels})])
        finally:
            await traffic.close()
        return outcome

    def _materialize_until(self, day: date) -> OnlineFeatures:
        """Empty online features filled as known when ``day`` began: nothing of a day cut short stays."""
        self._online = OnlineFeatures(self._wheel.workspace.open_online(fresh=True))
        self._materialize(_BEGINNING, to_millis(_start_of(day)) - _HOUR_MILLIS)
        return self._online

    def _materialize(self, since: int, until: int) -> None:
        """Bring what became known in (``since``, ``until``] online."""
        assert self._online is not None
        for view, rows in self._views:
            fresh = rows.between(since + 1, until + 1)
            if fresh.height:
                self._online.materialize(view, fresh)

    def _days(self) -> Iterator[date]:
        for offset in range((self._until - self._since).days):
            yield (self._since + timedelta(days=offset)).date()

    def _hours(self, day: date) -> Iterator[_Hour]:
        begin = to_millis(_start_of(day))
        for start in range(begin, begin + 24 * _HOUR_MILLIS, _HOUR_MILLIS):
            requests = self._requests.between(start, start + _HOUR_MILLIS)
            labels = self._labels.between(start, start + _HOUR_MILLIS)
            yield _Hour(
                start,
                [self._request(row) for row in requests.rows(named=True)],
                labels.drop("__known").rows(named=True),
            )

    def _request(self, row: dict[str, object]) -> bytes:
        return msgspec.json.encode(
            {
                "prediction_id": row["__id"],
                "event_time": row["__time"],
                "entities": {key: row[key] for key in self._keys},
                "features": {name: row[name] for name in self._sent},
            }
        )

    @staticmethod
    def _timelines(table: Observations, since: datetime, until: datetime) -> tuple[_Timeline, _Timeline]:
        """What is asked in [``since``, ``until``), and the outcomes of it in the order they became known."""
        import polars as pl

        event, known = pl.col(table.event_time), pl.col(table.label_time)
        asked = table.load().filter(event.is_between(since, until, closed="left"))
        key, time = pl.col(table.key).cast(pl.String), event.dt.to_string(_RFC_3339)
        requests = asked.with_columns(__id=key, __time=time)
        labels = asked.filter(pl.col(table.label).is_not_null()).select(
            prediction_id=key,
            event_time=time,
            observed_at=known.dt.to_string(_RFC_3339),
            label=pl.col(table.label).cast(pl.Float64),
            __known=known,
        )
        return _Timeline(requests, event.dt.epoch("ms")), _Timeline(labels, pl.col("__known").dt.epoch("ms"))


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
