"""Shadows: versions that get copies of requests, off the hot path, and whose answers only the log sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from noria.errors import NoriaError
from noria.monitoring.log import DROPPED, PredictionBatch, part_of
from noria.rollout.routes import place
from noria.serving.items import Item, outcome_of
from noria.serving.live import Arm
from noria.serving.recorder import Recorder
from noria.serving.runtimes import WAITED_FOR_UNTIL, Hung, Rows
from noria.serving.served import Served

if TYPE_CHECKING:
    from noria.serving.inputs import OnlineInputs
    from noria.serving.metrics import ServingMetrics

_log = structlog.get_logger()
_LONGEST_QUEUE_ROWS = 16_384
_BATCH_ROWS = 128
_GATHER_SECONDS = 0.05
"""Copies wait for others until so many are there, or so long, so that a row costs little. More, and a runtime would
take all processors for them, and the interpreter be held for longer than a request may wait."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """Rows that were answered, as the version that answered took them, and as they were logged.

    ``items`` is what they were made of, where the shadow takes other inputs. Else nothing of the requests is touched
    again: the thread that answers has their values in its processor's cache, another one would wait for each of them.
    """

    rows: Rows
    logged: PredictionBatch
    items: Sequence[Item] = ()

    @property
    def joins(self) -> bool:
        """Whether its rows may be scored together with those of other copies."""
        rows, ids = self.rows, self.logged.prediction_ids
        return not (self.items or rows.tensors or rows.params) and len(rows) == len(ids) < _BATCH_ROWS


class Shadow:
    """One shadow of one deployment: a thread of its own with a queue of bounded length. What does not fit is dropped
    and counted; the requests themselves never wait for it."""

    def __init__(
        self, arm: Arm, deployment: str, salt: str, online: OnlineInputs, recorder: Recorder, metrics: ServingMetrics
    ) -> None:
        self.arm, self._online = arm, online
        self._deployment, self._salt = deployment, f"{salt}shadow"
        self._recorder, self._metrics = recorder, metrics
        self._alike: WeakKeyDictionary[Served, bool] = WeakKeyDictionary()
        self._gathered: list[_Copy] = []
        self._rows = self._gathered_rows = 0
        self._dropped: dict[int, int] = {}
        """Rows by revision, until the thread tells the log of them."""
        self._lock = threading.Lock()
        self._told: SimpleQueue[list[_Copy] | None] = SimpleQueue()
        """Enough copies to score, or None: some began to be gathered, or the end."""
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"shadow {arm.served.label}", daemon=True)
        self._thread.start()

    def offer(self, items: Sequence[Item], rows: Rows, logged: PredictionBatch) -> None:
        """Take copies of the share of ``items`` that is the shadow's; ``rows`` and ``logged`` are what became of them.

        Threads may call it at once.
        """
        percent = self.arm.variant.percent
        if percent < 100:
            takes = [self._takes(item, percent) for item in items]
            if not any(takes):
                return
            chosen = np.flatnonzero(np.repeat(takes, [item.count for item in items]))
            rows, logged = rows.part(chosen), part_of(logged, chosen)
            items = [item for item, taken in zip(items, takes, strict=True) if taken]
        count = len(rows)
        copy = _Copy(rows, logged, () if self._is_alike(items[0].arm) else items)
        with self._lock:
            if self._rows + count > _LONGEST_QUEUE_ROWS:
                self._metrics.count_shadow(self._deployment, DROPPED, count)
                if not self._dropped:
                    self._told.put(None)
                self._dropped[logged.revision] = self._dropped.get(logged.revision, 0) + count
                return
            if not self._gathered:
                self._told.put(None)
            self._gathered.append(copy)
            self._rows += count
            self._gathered_rows += count
            if self._gathered_rows >= _BATCH_ROWS:
                self._told.put(self._taken())

    @property
    def waiting(self) -> int:
        """Rows that wait or are being scored."""
        return self._rows

    def stop(self) -> None:
        """End the thread once what it works on is done."""
        self._ended = True
        self._told.put(None)

    def _takes(self, item: Item, percent: float) -> bool:
        return place(self._salt + item.prediction_id, (100 - percent, percent)) == 1

    def _is_alike(self, answering: Arm) -> bool:
        """Whether that version takes the very inputs that the shadow takes."""
        known = self._alike.get(answering.served)
        if known is None:
            theirs, mine = answering.served.bundle, self.arm.served.bundle
            known = (theirs.inputs, theirs.computed, theirs.tensors) == (mine.inputs, mine.computed, mine.tensors)
            self._alike[answering.served] = known
        return known

    def _run(self) -> None:
        while not self._ended:
            for copies in _batches(self._next()):
                if not self._ended:
                    self._score(copies)
                with self._lock:
                    self._rows -= sum([len(copy.rows) for copy in copies])
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        for revision, rows in dropped.items():
            self._recorder.not_shadowed(self._deployment, revision, self.arm, DROPPED, rows)

    def _next(self) -> list[_Copy]:
        """The copies to score next; none when the shadow ends meanwhile."""
        found = self._told.get()
        if found is None and not self._ended:
            with suppress(Empty):
                found = self._told.get(timeout=_GATHER_SECONDS)
        if found is None:
            with self._lock:
                found = self._taken()
        return found

    def _taken(self) -> list[_Copy]:
        """What was gathered; the lock must be held."""
        taken, self._gathered, self._gathered_rows = self._gathered, [], 0
        return taken

    def _score(self, copies: Sequence[_Copy]) -> None:
        """Score copies; a request that the shadow fails costs no other its score, and the log is told of it."""
        failed, error = self._try(copies)
        if failed:
            self._metrics.count_shadow(self._deployment, "failed", failed)
            self._recorder.not_shadowed(self._deployment, copies[0].logged.revision, self.arm, "failed", failed)
            _log.warning("shadow_failed", model_version=self.arm.served.label, rows=failed, reason=str(error))

    def _try(self, copies: Sequence[_Copy]) -> tuple[int, Exception | None]:
        """Score copies together, or where that fails each half of them; how many rows failed, and one of the errors."""
        try:
            self._score_together(copies)
        except Exception as error:  # whatever a model raises: nobody waits for this answer
            halves = () if isinstance(error, Hung) else _halves(copies)  # each would take as long again
            if not halves:
                return sum([len(copy.rows) for copy in copies]), error
            (one, first), (other, second) = map(self._try, halves)
            return one + other, first or second
        return 0, None

    def _score_together(self, copies: Sequence[_Copy]) -> None:
        """Score copies as the shadow would have answered them; its latency is the time of scoring alone."""
        inputs = self._inputs(copies[0]) if len(copies) == 1 else _together([copy.rows for copy in copies])
        started = time.monotonic()
        WAITED_FOR_UNTIL.set(started + self.arm.batcher.limits.timeout_seconds)
        outcome = outcome_of(self.arm.served.bundle, self.arm.served.score(inputs), len(inputs))
        seconds = time.monotonic() - started
        self._recorder.shadowed([copy.logged for copy in copies], self.arm, inputs, outcome, seconds)
        self._metrics.count_shadow(self._deployment, "scored", sum([len(copy.rows) for copy in copies]))

    def _inputs(self, copy: _Copy) -> Rows:
        """The rows as the shadow takes them. Raises NoriaError for requests that lack what it needs."""
        if not copy.items:
            return copy.rows
        rows = [self._row(item) for item in copy.items]
        texts = None if rows[0][1] is None else np.array([row[1] for row in rows], dtype=object)
        return Rows(np.array([row[0] for row in rows], dtype=np.float64), texts)

    def _row(self, item: Item) -> tuple[list[Any], list[str | None] | None]:
        """For a shadow with inputs of its own: what the client sent, by name, and what is looked up and computed."""
        if item.request is None:
            raise NoriaError("a block of rows for the champion's inputs does not fit the shadow's")
        sent, bundle = item.request.features, self.arm.served.bundle
        named = sent if isinstance(sent, dict) else dict(zip(item.arm.columns.names, sent, strict=False))
        numbers, texts = self.arm.columns.row({name: named[name] for name in bundle.sent if name in named})
        if not self.arm.served.is_complete:
            more, words = self.arm.columns.looked_up(self._found(item, named))
            numbers, texts = [*numbers, *more], None if texts is None else [*texts, *words]
        return numbers, texts

    def _found(self, item: Item, named: Mapping[str, Any]) -> Sequence[Any]:
        (vector,) = self._online.vectors(self.arm.served.bundle.looked_up, [(item.entities, item.event_time)])
        if isinstance(vector, NoriaError):
            raise vector
        if self.arm.served.computing is None:
            return vector
        (found,) = self.arm.served.computing.completed([named], [vector])
        if isinstance(found, NoriaError):
            raise found
        return found[0]


def _batches(copies: Sequence[_Copy]) -> Iterator[list[_Copy]]:
    """The copies in their order: those that may be scored together, and the others one by one."""
    for (joins, _), group in groupby(copies, key=lambda copy: (copy.joins, copy.logged.revision)):
        several = list(group)
        yield from [several] if joins else ([copy] for copy in several)


def _halves(copies: Sequence[_Copy]) -> Sequence[Sequence[_Copy]]:
    """The copies as two halves, a single one by its requests; none for those of one request."""
    if len(copies) > 1:
        middle = len(copies) // 2
        return [copies[:middle], copies[middle:]]
    (copy,) = copies
    count, ids, items = len(copy.rows), len(copy.logged.prediction_ids), copy.items
    if count == 1 or ids != count or len(items) not in (0, count):
        return []
    return [[_part(copy, places)] for places in np.array_split(np.arange(count), 2)]


def _part(copy: _Copy, places: NDArray[np.intp]) -> _Copy:
    items = [copy.items[place] for place in places] if copy.items else ()
    return _Copy(copy.rows.part(places), part_of(copy.logged, places), items)


def _together(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    texts = [part.strings for part in parts if part.strings is not None]
    strings = np.concatenate(texts) if texts else None
    return Rows(np.concatenate([part.numbers for part in parts]), strings)
