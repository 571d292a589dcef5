"""Group commit: what many clients log at the same moment is written in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from noria.audit import RowKey, caller, tallies
from noria.audit.caller import Caller
from noria.audit.pending import Note, note_all
from noria.audit.tallies import METRICS, PARAMS, Counted
from noria.errors import NoriaError
from noria.store.database import Database, Transaction
from noria.tracking import metrics, run_keys, runs
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


Logged = tuple[Batch, Caller]
"""A batch, and who sent it."""


class GroupWriter:
    """Writes batches. While one group commits, the next gathers, so that waiting for the disk is shared.

    Lives in one event loop; a batch is durable when ``write`` returns.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Logged, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._unaccounted = 0  # batches since the database's statistics were refreshed
        self._refreshed_at = 0.0

    async def write(self, batch: Batch) -> None:
        """Commit ``batch``. Raises what its own content is refused for; others of its group are not touched by that."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(((batch, caller()), done))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
            try:
                faults = await asyncio.to_thread(self._commit, [logged for logged, _ in group])
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

    def _commit(self, group: Sequence[Logged]) -> Sequence[Exception | None]:
        try:
            with self._database.append() as tx:
                return _write(tx, group, _append_new)
        except metrics.Repeated:
            with self._database.append() as tx:
                return _write(tx, group, _append)


def write_all(tx: Transaction, group: Sequence[Batch]) -> Sequence[NoriaError | None]:
    """Write every batch of ``group``; gives the error of each that was refused, and has written nothing of it."""
    return _write(tx, [(batch, caller()) for batch in group], _append)


def _write(
    tx: Transaction, group: Sequence[Logged], append: Callable[[Transaction, Sequence[_Accepted]], None]
) -> Sequence[NoriaError | None]:
    """Metrics of all batches go in together; params and tags, which may contradict what is there, one by one."""
    closed = runs.unwritable(tx, {(batch.run_id, bool(batch.metrics)) for batch, _ in group})
    outcomes = [closed.get((batch.run_id, bool(batch.metrics))) or _pairs(tx, batch) for batch, _ in group]
    accepted = [
        _Accepted(batch, who, added, metrics.as_rows(batch.run_id, batch.metrics))
        for (batch, who), added in zip(group, outcomes, strict=True)
        if isinstance(added, dict)
    ]
    append(tx, accepted)
    metrics.append_of_models(tx, [value for one in accepted for value in one.batch.of_models])
    return [added if isinstance(added, NoriaError) else None for added in outcomes]


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A batch that is written: who sent it, what of its pairs was new, and its metrics as rows."""

    batch: Batch
    who: Caller
    pairs: dict[str, Counted]
    rows: list[metrics.Row]


def _append_new(tx: Transaction, accepted: Sequence[_Accepted]) -> None:
    metrics.append_new(tx, [row for one in accepted for row in one.rows], _notes(accepted))


def _append(tx: Transaction, accepted: Sequence[_Accepted]) -> None:
    new = set(metrics.append(tx, [row for one in accepted for row in one.rows]))
    counted = []
    for one in accepted:  # what two of them bring is the first one's
        mine = new & set(one.rows)
        new = new - mine
        counted.append(replace(one, rows=list(mine)))
    note_all(tx, _notes(counted))


def _pairs(tx: Transaction, batch: Batch) -> dict[str, Counted] | NoriaError:
    """Write params and tags: what was added, or why the batch is refused."""
    try:
        run_keys.check_metrics(batch.metrics)
        if not (batch.params or batch.tags):
            return {}
        with tx.begin_nested():
            return {
                PARAMS: runs.add_params(tx, batch.run_id, batch.params),
                runs.TAGS: runs.put_tags(tx, batch.run_id, batch.tags),
            }
    except NoriaError as error:
        return error


def _notes(accepted: Sequence[_Accepted]) -> list[Note]:
    """One note for all that somebody logged; it names the request when there was but one."""
    of_actors: dict[str, list[_Accepted]] = {}
    for one in accepted:
        of_actors.setdefault(one.who.actor, []).append(one)
    found = []
    for actor, mine in of_actors.items():
        added: dict[str, dict[str, Counted]] = {}
        for one in mine:
            counted = {METRICS: metrics.tally(one.rows), "of_models": (len(one.batch.of_models), 0)}
            tallies.add(added, {one.batch.run_id: {**one.pairs, **counted}})
        requests = {one.who.request_id for one in mine}
        who = Caller(actor, requests.pop() if len(requests) == 1 else "")
        found += _note(who, added)
    return found


def _note(who: Caller, added: Mapping[str, Mapping[str, Counted]]) -> list[Note]:
    changed: list[RowKey] = []
    tally: dict[str, Mapping[str, Counted]] = {}
    for run_id, kinds in added.items():
        rows, counted = runs.logged(run_id, kinds)
        changed += rows
        tally |= counted
    return [Note("run.log", next(iter(tally)), who, changed, tally)] if tally else []
