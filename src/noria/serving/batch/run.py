"""A batch job from begin to end: planned, resumed where it stopped, its parts done in parallel and tried again."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from noria.errors import NoriaError
from noria.serving.batch.parts import Done, Part, Source
from noria.serving.batch.processes import Advanced, Engine
from noria.serving.batch.worker import Failure

_log = structlog.get_logger()
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_GROWTH = 4
"""Three retries, as many as there are by default, reach over the restart of a server: 10 seconds."""
_TICK_SECONDS = 0.2


class PartsFailed(NoriaError):
    """Some parts could not be done; all others are."""

    code = "parts_failed"


@dataclass(slots=True)
class Progress:
    """How far a job is. ``rows`` are those scored or refused in this run, ``total`` None where nobody knows yet."""

    parts: int
    total: int | None
    rows: int = 0
    done: int = 0
    retries: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, parts of earlier runs included."""

    done: Sequence[Done]
    failed: Sequence[Failure]
    retries: int


@dataclass(slots=True)
class _Board:
    """Which parts wait until when, which are tried for the how-many-th time, and what became of them."""

    waiting: list[tuple[float, int]]
    tries: dict[int, int] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def work(
    engine: Engine, parts: Sequence[Part], max_retries: int, progress: Progress, told: Callable[[Progress], None]
) -> Outcome:
    """Have every part done, each that fails tried again after a while, up to ``max_retries`` times."""
    known = {part.number: part for part in parts}
    board = _Board([(0.0, part.number) for part in parts])
    began, advanced = time.monotonic(), dict.fromkeys(known, 0)
    while len(board.done) + len(board.failed) < len(parts):
        now = time.monotonic()
        while engine.free and board.waiting and board.waiting[0][0] <= now:
            engine.start(known[heapq.heappop(board.waiting)[1]])
        for event in engine.events(_TICK_SECONDS):
            if isinstance(event, Advanced):
                progress.rows += event.rows
                advanced[event.number] += event.rows
            elif isinstance(event, Done):
                board.done.append(event)
                progress.done += 1
                progress.rows += event.rows + event.skipped - advanced[event.number]
            else:
                progress.rows -= advanced[event.number]
                advanced[event.number] = 0
                progress.retries += _again(board, event, max_retries)
        progress.seconds = time.monotonic() - began
        told(progress)
    return Outcome(board.done, sorted(board.failed, key=lambda one: one.number), progress.retries)


def _again(board: _Board, failure: Failure, max_retries: int) -> int:
    """Whether the part is tried once more (1) or given up (0)."""
    tries = board.tries[failure.number] = board.tries.get(failure.number, 0) + 1
    if failure.final or tries > max_retries:
        board.failed.append(failure)
        _log.error("batch_part_failed", part=failure.number, tries=tries, reason=failure.message)
        return 0
    wait = min(_FIRST_WAIT_SECONDS * _GROWTH ** (tries - 1), _LONGEST_WAIT_SECONDS)
    heapq.heappush(board.waiting, (time.monotonic() + wait, failure.number))
    _log.warning("batch_part_retried", part=failure.number, tries=tries, wait_seconds=wait, reason=failure.message)
    return 1


def failed_error(outcome: Outcome, parts: Sequence[Part], source: Source) -> PartsFailed:
    """The error that names every part that failed."""
    names = {part.number: source.shown(part.source) for part in parts}
    details = [f"part {one.number} ({names[one.number]}): {one.message}" for one in outcome.failed]
    remedies = dict.fromkeys(one.remedy for one in outcome.failed if one.remedy)
    return PartsFailed(
        f"{len(outcome.failed)} of {len(parts)} parts failed; all others are done",
        details=details,
        remedy=" ".join([*remedies, "The same command goes on with what is missing."]),
    )
