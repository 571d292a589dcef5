"""Group commit: what many clients log at the same moment is written in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from noria.errors import NoriaError
from noria.store.database import Database, Transaction
from noria.tracking import metrics, runs
from noria.tracking.entities import Metric, ModelMetric

_LARGEST_GROUP = 64
_REFRESH_BATCHES = 1000
_REFRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request logs to a run: written as a whole, or not at all."""

    run_id: str
    metrics: Sequence[Metric] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    of_models: Sequence[ModelMetric] = ()


class GroupWriter:
    """Writes batches. While one group commits, the next gathers, so that waiting for the disk is shared.

    Lives in one event loop; a batch is durable when ``write`` returns.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Batch, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._unaccounted = 0  # batches since the database's statistics were refreshed
        self._refreshed_at = 0.0

    async def write(self, batch: Batch) -> None:
        """Commit ``batch``. Raises what its own content is refused for; others of its group are not touched by that."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
            try:
                faults = await asyncio.to_thread(self._commit, [batch for batch, _ in group])
            except Exception as error:
                faults = [error] * len(group)
            for (_, done), fault in zip(group, faults, strict=True):
                if done.cancelled():
                    continue
                if fault is None:
                    done.set_result(None)
                else:
                    done.set_exception(fault)
            self._unaccounted += len(group)
            await self._refresh_statistics()
        self._task = None

    async def _refresh_statistics(self) -> None:
        now = time.monotonic()
        if self._unaccounted < _REFRESH_BATCHES or now - self._refreshed_at < _REFRESH_SECONDS:
            return
        self._unaccounted, self._refreshed_at = 0, now
        with contextlib.suppress(NoriaError):  # the next search is slow at worst
            await asyncio.to_thread(self._database.refresh_statistics)

    def _commit(self, group: Sequence[Batch]) -> Sequence[Exception | None]:
        with self._database.append() as tx:
            return write_all(tx, group)


def write_all(tx: Transaction, group: Sequence[Batch]) -> Sequence[NoriaError | None]:
    """Write every batch of ``group``; gives the error of each that was refused, and has written nothing of it.

    Metrics of all batches go in two statements; params and tags, which may contradict what is there, batch by batch.
    """
    closed = runs.unwritable(tx, {(batch.run_id, bool(batch.metrics)) for batch in group})
    faults = [closed.get((batch.run_id, bool(batch.metrics))) or _fault(tx, batch) for batch in group]
    accepted = [batch for batch, fault in zip(group, faults, strict=True) if fault is None]
    metrics.append(tx, [(batch.run_id, metric) for batch in accepted for metric in batch.metrics])
    metrics.append_of_models(tx, [value for batch in accepted for value in batch.of_models])
    return faults


def _fault(tx: Transaction, batch: Batch) -> NoriaError | None:
    """Write params and tags; why the batch is refused, or None."""
    try:
        runs.check_metrics(batch.metrics)
        if batch.params or batch.tags:
            with tx.begin_nested():
                runs.log_params(tx, batch.run_id, batch.params)
                runs.set_tags(tx, batch.run_id, batch.tags)
    except NoriaError as error:
        return error
    return None
