"""Doing one part: read, score, write, commit. In the process that does it, whichever engine started that."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.errors import InvalidConfig, InvalidData, InvalidInput, MissingExtra, NoriaError, NotFound
from noria.processors import WORKERS_VARIABLE, processors
from noria.rollout.routes import Variant
from noria.serving.batch.columns import Columns
from noria.serving.batch.manifest import Manifest
from noria.serving.batch.parts import Batch, Done, Part, Refusal, RowRefused, Source
from noria.serving.batch.scoring import Join, Scorer
from noria.serving.batch.targets import PartOutput, Target
from noria.serving.inputs import OnlineInputs
from noria.serving.served import Served, load_served
from noria.store.blobs import open_blobs

_FINAL = (InvalidInput, InvalidData, InvalidConfig, MissingExtra, NotFound)
"""What no further try will mend."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a process finds the model: the variant, and the artifacts its files lie among."""

    variant: Variant
    artifacts: str
    folder: Path
    cache: Path

    def load(self) -> Served:
        """The model, ready to score. Raises CorruptArtifact, MissingExtra."""
        return load_served(open_blobs(self.artifacts, folder=self.folder, cache=self.cache), self.variant)


@dataclass(frozen=True, slots=True)
class Task:
    """All that a process must know to do any part of a job.

    ``workers`` is how many processes share the machine; ``skip`` says that refused rows are left out, not fatal.
    """

    model: ModelFiles
    source: Source
    columns: Columns
    target: Target
    manifest: Manifest
    online_store: str
    join: Join | None
    batch_rows: int
    skip: bool
    workers: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a part was not done; ``final`` when another try would end the same."""

    number: int
    message: str
    remedy: str
    final: bool


class PartWorker:
    """Does parts of one job, one after the other, with one loaded model."""

    def __init__(self, task: Task, served: Served | None = None) -> None:
        self._task = task
        model = task.model.load() if served is None else served
        self._scorer = Scorer(model, task.columns, OnlineInputs(task.online_store), task.join, task.manifest.at)

    def do(self, part: Part, advanced: Callable[[int], None]) -> Done:
        """Score and commit a part; ``advanced`` hears of every batch's rows. Raises RowRefused, InvalidData."""
        import polars as pl

        task = self._task
        output = task.target.part(part.number, task.manifest, task.columns.written)
        try:
            done = self._score(part, output, advanced)
            output.commit(done)
        except pl.exceptions.PanicException as error:  # no Exception: it would end the process, and say nothing
            raise InvalidData(
                f"Polars cannot read or write the rows: {error}", remedy="Leave the column out with --keep."
            ) from error
        finally:
            output.discard()
        return done

    def _score(self, part: Part, output: PartOutput, advanced: Callable[[int], None]) -> Done:
        task, rows, skipped = self._task, 0, 0
        seen = 0
        ids = f"{task.manifest.job_id[:16]}{part.number:06x}"
        for batch in _ahead(self._batches(part)):
            scored = self._scorer.score(batch, lambda place, start=seen: f"{ids}{start + place:010x}")  # type: ignore[misc]
            if scored.refused:
                refused = [_told(task.source, part, seen, batch, one) for one in scored.refused]
                if not task.skip:
                    raise _refused(refused[0])
                output.refuse(refused)
            output.write(scored.frame)
            rows, skipped, seen = rows + scored.frame.height, skipped + len(scored.refused), seen + batch.frame.height
            advanced(batch.frame.height)
        return Done(part.number, rows, skipped)

    def _batches(self, part: Part) -> Iterator[Batch]:
        task = self._task
        if not part.rows and part.rows is not None:
            return iter(())
        return task.source.batches(part, task.columns.read, task.columns.numbers, task.batch_rows)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, each read while the one before it is scored; always by the same thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        try:
            pending = reader.submit(next, batches, None)
            while (batch := pending.result()) is not None:
                pending = reader.submit(next, batches, None)
                yield batch
        finally:
            pending.cancel()
            reader.submit(_close, batches).result()


def _close(batches: Iterator[Batch]) -> None:
    """Let go of what batches are read from, if that is a generator that was not read to its end."""
    if isinstance(batches, Generator):
        batches.close()


def share_machine(workers: int) -> None:
    """Called first in a new process: take no more processors than its share."""
    os.environ[WORKERS_VARIABLE] = str(workers)
    os.environ.setdefault("POLARS_MAX_THREADS", str(processors()))


def failure_of(number: int, error: BaseException) -> Failure:
    """An error as it travels between processes."""
    if not isinstance(error, NoriaError):
        first = str(error).strip().split("\n", 1)[0]
        remedy = "Check the output's path, its permissions and the free space." if isinstance(error, OSError) else ""
        return Failure(number, f"{type(error).__name__}: {first}", remedy, final=False)
    details = "".join(f"; {detail}" for detail in error.details)
    return Failure(number, error.message + details, error.remedy, isinstance(error, _FINAL))


def _told(source: Source, part: Part, start: int, batch: Batch, one: Refusal) -> dict[str, Any]:
    """A refused row as it is written down: where it stands, counted from 0, why, and what it holds."""
    values: Mapping[str, Any] = batch.frame.row(one.place, named=True)
    row = (part.first_row or 0) + start + one.place
    return {"source": source.shown(part.source), "row": row, "reason": one.reason, "values": {**values, **one.given}}


def _refused(row: Mapping[str, Any]) -> RowRefused:
    return RowRefused(
        f"row {row['row']} of {row['source']}: {row['reason']}",
        remedy="Mend the row, or give --on-error skip to leave such rows out.",
    )
