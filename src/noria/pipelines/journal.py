"""The journal of a durable run: a step that is written down is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import insert, select

from noria.clock import Clock, to_millis
from noria.store.database import Database, from_json, to_json
from noria.store.tables import pipeline_steps


class Journal:
    """The steps of one pipeline run. A step runs at least once: after a crash it may run again, so its effects must
    be idempotent; once recorded its result is returned from here."""

    def __init__(self, database: Database, pipeline_id: str, clock: Clock) -> None:
        self._database = database
        self._pipeline_id = pipeline_id
        self._clock = clock
        with database.read() as tx:
            rows = tx.execute(select(pipeline_steps).where(pipeline_steps.c.pipeline_id == pipeline_id))
            self._done = {row.step: (from_json(row.result), row.seconds) for row in rows}

    def step(self, name: str, function: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
        """The result of step ``name``: recorded, or of running ``function`` now."""
        if name not in self._done:
            started = time.perf_counter()
            result = dict(function())
            self._record(name, result, time.perf_counter() - started)
        return self._done[name][0]

    def results(self) -> dict[str, Mapping[str, object]]:
        """Step name → result of every step done so far."""
        return {name: result for name, (result, _) in self._done.items()}

    def seconds(self) -> dict[str, float]:
        """Step name → how long it took."""
        return {name: seconds for name, (_, seconds) in self._done.items()}

    def _record(self, name: str, result: dict[str, object], seconds: float) -> None:
        with self._database.write() as tx:
            tx.execute(
                insert(pipeline_steps).values(
                    pipeline_id=self._pipeline_id,
                    step=name,
                    result=to_json(result),
                    seconds=seconds,
                    finished_at=to_millis(self._clock.now()),
                )
            )
        self._done[name] = (result, seconds)
