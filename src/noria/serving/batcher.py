"""One version's queue: what is cheap is scored in the event loop, the rest in threads, and never without bound."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from threading import current_thread, main_thread

import numpy as np
import structlog

from noria.errors import DeadlineExceeded, InvalidInput, NoriaError, Overloaded
from noria.serving.bare import bare
from noria.serving.items import Item, Outcome, Result, outcome_of
from noria.serving.runtimes import WAITED_FOR_UNTIL, Hung, Rows, Tensors
from noria.serving.served import Served

_log = structlog.get_logger()
_INLINE_SECONDS = 0.0015
"""A batch that is expected to take less is scored in the event loop: a thread would cost more than it saves."""
_INLINE_BLOCKS_SECONDS = 0.0005
"""The same for blocks of rows of several requests: while a thread scores, the loop reads the next."""
_BATCH_SECONDS = 0.02
"""Waiting rows are put together into one call until they are expected to take this long."""
_LATE_SECONDS = 0.01
"""How long after its deadline a request may be refused: all that are late by then are looked for at once."""
_LONGEST_CALL_SECONDS = 120.0
"""Of a call that hangs, where the deployment's own timeout is no longer: a client that names more time must not hold
up all others for it."""
_ANSWERED, _LATE = True, False
_THE_MODEL = re.compile("^((?:the process of )?)the model(?= )")

Recorder = Callable[[Sequence[Item], Rows, Outcome, float], None]
"""Writes what was scored to the log, before the answers leave; last, the seconds of it that went to other variants."""
Failure = Callable[[Item, NoriaError], None]
Hanging = Callable[[Served], None]
"""Is told of every call of a model that hung."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one version of a deployment takes on. ``concurrency`` 0: as many calls at once as its runtime says."""

    queue_rows: int = 20_000
    timeout_seconds: float = 30.0
    concurrency: int = 0


class Batcher:
    """Scores the items of one version. All methods are called in the event loop; ``record`` also in threads."""

    def __init__(
        self, served: Served, limits: Limits, record: Recorder, failed: Failure, hung: Hanging = lambda _: None
    ) -> None:
        self.served, self.limits = served, limits
        self.rows = 0
        """Rows taken on and not yet answered."""
        self.fault: NoriaError | None = None
        """Why the last call gave no answer, where the model hung."""
        self._record, self._failed, self._hung = record, failed, hung
        self._waiting: deque[Item] = deque()
        self._running: list[Sequence[Item]] = []
        self._ends: dict[Item, bool] = {}
        """Of items in calls under way: whether the answer or the deadline came first. ``setdefault`` decides it, in
        whichever thread."""
        self._clock: asyncio.TimerHandle | None = None
        self._clock_at = 0.0
        self._concurrency = limits.concurrency or served.runtime.concurrency
        self._threads: ThreadPoolExecutor | None = None
        self._closing = False

    def admit(self, count: int, deadline: float) -> None:
        """Take on ``count`` more rows. Raises Overloaded when they would wait too long or are too many."""
        served, waiting = self.served, self.rows
        if waiting and waiting + count > self.limits.queue_rows:
            raise Overloaded(
                f"{served.label} has {waiting} rows waiting, and takes {self.limits.queue_rows}",
                remedy="Send less at a time, try again later, or add workers or gateways.",
                retry_after=self._expected_seconds(waiting),
            )
        if waiting and time.monotonic() + served.row_seconds * waiting / self._concurrency > deadline:
            raise Overloaded(
                f"{served.label} has {waiting} rows waiting, too many to answer before the deadline",
                remedy="Allow more time, try again later, or add workers or gateways.",
                retry_after=self._expected_seconds(waiting),
            )
        self.rows = waiting + count

    def submit(self, items: Sequence[Item], since: float) -> None:
        """Score ``items``, which were admitted, in a tick that scores since ``since`` (monotonic)."""
        count = sum([item.count for item in items])
        served, are_blocks = self.served, count > len(items) > 1
        most = _INLINE_BLOCKS_SECONDS if are_blocks else _INLINE_SECONDS
        cheap = served.runtime.inline and served.row_seconds * count < most and not self._waiting
        if cheap and not [item for item in items if item.params or item.tensors]:
            self._finish(items, self._score(items, self._record, since))
            return
        self._waiting.extend(items)
        self._watch(items)
        self._dispatch()

    def release(self, count: int) -> None:
        """Rows that were admitted are answered, or given up."""
        self.rows -= count
        if self._closing and not self.rows:
            self._unload()

    def close(self) -> None:
        """Unload the version once all that was admitted is answered."""
        self._closing = True
        if not self.rows:
            self._unload()

    def _unload(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        if self._clock is not None:
            self._clock.cancel()
        self.served.runtime.unload()

    def _expected_seconds(self, rows: int) -> int:
        return max(1, min(60, math.ceil(self.served.row_seconds * rows / self._concurrency)))

    def _dispatch(self) -> None:
        while self._waiting and len(self._running) < self._concurrency:
            batch = self._next_batch()
            self._running.append(batch)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix=self.served.label)
            running = asyncio.get_running_loop().run_in_executor(self._threads, self._score_beside, batch)
            running.add_done_callback(partial(self._returned, batch))

    def _next_batch(self) -> list[Item]:
        most = max(1, int(_BATCH_SECONDS / max(self.served.row_seconds, 1e-9)))
        batch = [self._waiting.popleft()]
        rows = batch[0].count
        while self._waiting and rows + self._waiting[0].count <= most and _alike(batch[0], self._waiting[0]):
            batch.append(self._waiting.popleft())
            rows += batch[-1].count
        return batch

    def _returned(self, batch: Sequence[Item], done: asyncio.Future[_Results]) -> None:
        self._running.remove(batch)
        self.fault = next((result for result in done.result() if isinstance(result, Hung)), None)
        if self.fault is not None:
            self._hung(self.served)
        for item, result in zip(batch, done.result(), strict=True):
            if self._ends.pop(item, _ANSWERED) is _LATE:
                self.release(item.count)
            else:
                self._finish([item], [result])
        self._dispatch()

    def _watch(self, items: Sequence[Item]) -> None:
        """See to it that the clock is looked at when the first of ``items`` is late."""
        first = min([item.deadline for item in items])
        if self._clock is not None:
            if self._clock_at <= first:
                return
            self._clock.cancel()
        self._clock_at = first
        seconds = max(first - time.monotonic(), 0.0) + _LATE_SECONDS
        self._clock = asyncio.get_running_loop().call_later(seconds, self._refuse_late)

    def _refuse_late(self) -> None:
        """Answer those whose time is over. What is being scored goes on, and keeps its place until it ends."""
        self._clock, now = None, time.monotonic()
        late = [item for item in self._waiting if item.deadline < now]
        if late:
            self._waiting = deque(item for item in self._waiting if item.deadline >= now)
            self._finish(late, [_too_late(self.served)] * len(late))
        scored = [item for batch in self._running for item in batch if item not in self._ends]
        for item in scored:
            if item.deadline < now and self._ends.setdefault(item, _LATE) is _LATE:
                self._refuse(item, _too_late(self.served))
        if timely := [item for item in [*self._waiting, *scored] if item.deadline >= now]:
            self._watch(timely)

    def _finish(self, items: Sequence[Item], results: _Results) -> None:
        for item, result in zip(items, results, strict=True):
            if isinstance(result, NoriaError):
                self._refuse(item, result)
            else:
                item.settle(result)
            self.release(item.count)

    def _refuse(self, item: Item, error: NoriaError) -> None:
        self._failed(item, error)
        item.refuse(error)

    def _record_timely(self, items: Sequence[Item], rows: Rows, outcome: Outcome, others: float) -> None:
        """Record what was not refused meanwhile, and from now on will not be."""
        timely = {item for item in items if self._ends.setdefault(item, _ANSWERED) is _ANSWERED}
        if len(timely) == len(items):
            self._record(items, rows, outcome, others)
            return
        for item, start in zip(items, _starts(items), strict=True):
            if item in timely:
                self._record([item], _rows([item]), outcome.part(start, item.count), others)

    def _score_beside(self, items: Sequence[Item]) -> _Results:
        """In a thread: ``_score``, of a runtime that is told how long anybody waits."""
        longest = time.monotonic() + max(_LONGEST_CALL_SECONDS, self.limits.timeout_seconds)
        WAITED_FOR_UNTIL.set(min(longest, max([item.deadline for item in items])))
        return self._score(items, self._record_timely)

    def _score(self, items: Sequence[Item], record: Recorder, since: float | None = None) -> _Results:
        """The outcome of every item, or why it has none; those that have one are in the log, if ``record`` puts them.

        What passed from ``since`` until now went to other variants of the same tick: it is not told of this one.
        """
        now = time.monotonic()
        others = 0.0 if since is None else now - since
        late = [item for item in items if item.deadline < now or item.answer.cancelled()]
        if late:
            kept = [item for item in items if item not in late]
            rest = iter(self._score(kept, record, since) if kept else ())
            return [_too_late(self.served) if item in late else next(rest) for item in items]
        try:
            rows = _rows(items)
            outcome = outcome_of(self.served.bundle, self.served.score(rows), len(rows))
            are_numbers = np.logical_and.reduce(np.isfinite(outcome.scores))  # .all() takes twice as long
        except BaseException as error:  # also what a model's code ends a program with
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # whoever runs the gateway stops it
            return self._score_singly(items, record, error)
        if not are_numbers:
            return self._without_numbers(items, record, rows, outcome)
        record(items, rows, outcome, others)
        if len(items) == 1:
            return [(outcome, 0)]
        return [(outcome, start) for start in _starts(items)]

    def _score_singly(self, items: Sequence[Item], record: Recorder, error: BaseException) -> _Results:
        """After a batch failed: each item on its own, so that only the one at fault goes without an answer."""
        if isinstance(error, Hung):
            return [_named(self.served, error)] * len(items)
        if len(items) > 1:
            return [result for item in items for result in self._score([item], record)]
        if isinstance(error, NoriaError):
            return [_named(self.served, error)]
        _log.error("row_failed", model_version=self.served.label, prediction_id=items[0].prediction_id, exc_info=error)
        return [_failed(self.served, error)]

    def _without_numbers(self, items: Sequence[Item], record: Recorder, rows: Rows, outcome: Outcome) -> _Results:
        """Refuse the items with rows that the model gives no number for; record the rest."""
        if len(items) > 1:
            return [result for item in items for result in self._score([item], record)]
        bad = int(np.flatnonzero(~np.isfinite(outcome.scores))[0])
        return [_no_number(self.served, items[0], rows, bad)]


_Results = Sequence[Result | NoriaError]


def _alike(one: Item, other: Item) -> bool:
    """Whether both may be scored by one call and logged as one batch."""
    if one.arm is not other.arm or one.params != other.params or not (one.count and other.count):
        return False
    if one.tensors is None:
        return True
    is_known = one.arm.served.bundle.rows_alone  # others' rows might change what is said of these
    return is_known and other.tensors is not None and _shapes(one.tensors) == _shapes(other.tensors)


def _shapes(tensors: Tensors) -> Mapping[str, tuple[int, ...]]:
    return {name: tensor.shape[1:] for name, tensor in tensors.items()}


def _rows(items: Sequence[Item]) -> Rows:
    """The rows of all items, one after the other."""
    first = items[0]
    texts = None
    if first.tensors is not None:
        numbers = np.empty((sum(item.count for item in items), 0))
        parts = [item.tensors for item in items if item.tensors is not None]
        together = {name: np.concatenate([part[name] for part in parts]) for name in first.tensors}
        return Rows(numbers, None, first.params, first.tensors if len(items) == 1 else together)
    if len(items) == 1 and first.is_block:
        return Rows(first.numbers, first.texts, first.params)  # type: ignore[arg-type]
    if not any(item.is_block for item in items):
        numbers = np.array([item.numbers for item in items], dtype=np.float64)
        if first.texts is not None:
            texts = np.array([item.texts for item in items], dtype=object)
        return Rows(numbers, texts, first.params)
    numbers = np.concatenate([np.atleast_2d(np.asarray(item.numbers, dtype=np.float64)) for item in items])
    if first.texts is not None:
        texts = np.concatenate([np.atleast_2d(np.asarray(item.texts, dtype=object)) for item in items])
    return Rows(numbers, texts, first.params)


def _starts(items: Sequence[Item]) -> Iterable[int]:
    """At which row of all of them those of each item begin."""
    return accumulate([item.count for item in items[:-1]], initial=0)


def _failed(served: Served, error: BaseException) -> NoriaError:
    """What a client is told when a model's code fails; what the error says may be none of its business."""
    return NoriaError(
        f"{served.label} failed at this row with {type(error).__name__}", remedy="The gateway's log says why."
    )


def _named(served: Served, error: NoriaError) -> NoriaError:
    """The error of a runtime, which calls its model "the model", with the version's name."""
    error.message = _THE_MODEL.sub(lambda found: found[1] + served.label, error.message)
    return bare(error)


def _too_late(served: Served) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{served.label} did not answer before the deadline", remedy="Allow more time, or send less at a time."
    )


def _no_number(served: Served, item: Item, rows: Rows, bad: int) -> InvalidInput:
    where = f" in row {bad}" if item.count > 1 else ""
    return InvalidInput(
        f"{served.no_number(rows, bad)}{where}",
        remedy="Send every feature in its usual range; this model was not trained to do without.",
    )
