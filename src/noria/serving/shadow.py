"""Shadows: versions that get copies of requests, off the hot path, and whose answers only the log sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from noria.errors import NoriaError
from noria.rollout.routes import place
from noria.serving.items import Item, outcome_of
from noria.serving.live import Arm
from noria.serving.recorder import Recorder
from noria.serving.runtimes import Rows

if TYPE_CHECKING:
    from noria.serving.inputs import OnlineInputs
    from noria.serving.metrics import ServingMetrics

_log = structlog.get_logger()
_LONGEST_QUEUE_ROWS = 16_384
_BATCH_ROWS = 128
_GATHER_SECONDS = 0.05
"""Copies wait for others until so many are there, or so long, so that a row costs little. More, and a runtime would
take all processors for them, and the interpreter be held for longer than a request may wait; longer, and every request
would be read into memory that no processor's cache holds any more."""


class Shadow:
    """One shadow of one deployment: a thread of its own with a queue of bounded length. What does not fit is dropped
    and counted; the requests themselves never wait for it."""

    def __init__(
        self, arm: Arm, deployment: str, salt: str, online: OnlineInputs, recorder: Recorder, metrics: ServingMetrics
    ) -> None:
        self.arm, self._online = arm, online
        self._deployment, self._salt = deployment, f"{salt}shadow"
        self._recorder, self._metrics = recorder, metrics
        self._gathered: list[Item] = []
        self._rows = self._gathered_rows = 0
        self._lock = threading.Lock()
        self._told: SimpleQueue[list[Item] | None] = SimpleQueue()
        """Enough copies to score, or None: some began to be gathered, or the end."""
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"shadow {arm.served.label}", daemon=True)
        self._thread.start()

    def offer(self, items: Sequence[Item]) -> None:
        """Take copies of the share of ``items`` that is the shadow's; they are complete and will not change."""
        percent = self.arm.variant.percent
        taken = items if percent >= 100 else [item for item in items if self._takes(item, percent)]
        rows = sum([item.count for item in taken])
        if not rows:
            return
        if self._rows + rows > _LONGEST_QUEUE_ROWS:
            self._metrics.count_shadow(self._deployment, "dropped", rows)
            return
        with self._lock:
            if not self._gathered:
                self._told.put(None)
            self._gathered += taken
            self._rows += rows
            self._gathered_rows += rows
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

    def _run(self) -> None:
        while not self._ended:
            for batch in _batches(self._next()):
                if not self._ended:
                    self._score(batch)
                with self._lock:
                    self._rows -= sum([item.count for item in batch])

    def _next(self) -> list[Item]:
        """The copies to score next; none when the shadow ends meanwhile."""
        found = self._told.get()
        if found is None and not self._ended:
            with suppress(Empty):
                found = self._told.get(timeout=_GATHER_SECONDS)
        if found is None:
            with self._lock:
                found = self._taken()
        return found

    def _taken(self) -> list[Item]:
        """What was gathered; the lock must be held."""
        taken, self._gathered, self._gathered_rows = self._gathered, [], 0
        return taken

    def _score(self, items: Sequence[Item]) -> None:
        """Score a batch as the shadow would have answered it; its latency is the time of scoring alone."""
        rows = sum(item.count for item in items)
        try:
            inputs = self._inputs(items)
            started = time.monotonic()
            outcome = outcome_of(self.arm.served.bundle, self.arm.served.score(inputs))
            self._recorder.shadowed(items, self.arm, inputs, outcome, time.monotonic() - started)
            self._metrics.count_shadow(self._deployment, "scored", rows)
        except Exception as error:  # whatever a model raises: nobody waits for this answer
            self._metrics.count_shadow(self._deployment, "failed", rows)
            _log.warning("shadow_failed", model_version=self.arm.served.label, reason=str(error))

    def _inputs(self, items: Sequence[Item]) -> Rows:
        """The rows as the shadow takes them. Raises NoriaError for requests that lack what it needs."""
        answering, mine = items[0].arm.served.bundle, self.arm.served.bundle
        if answering.inputs == mine.inputs and answering.computed == mine.computed:
            if items[0].is_block:
                return Rows(items[0].numbers, items[0].texts, items[0].params)  # type: ignore[arg-type]
            numbers = [item.numbers for item in items]
            texts = None if items[0].texts is None else np.array([item.texts for item in items], dtype=object)
            return Rows(np.array(numbers, dtype=np.float64), texts)
        rows = [self._row(item) for item in items]
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


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in their order: blocks of rows one by one, rows that stand side by side together."""
    for is_block, group in groupby(items, key=lambda item: item.is_block):
        several = list(group)
        yield from ([item] for item in several) if is_block else [several]
