"""Point-in-time joins as Ray tasks: each joins the rows of some keys, on any machine of a cluster, as a join here does.

Sources are read by the workers, but for functions of a project: those are called here, and their rows are sent.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.features.history import AsOf
from noria.features.join import Asked
from noria.features.parquet_files import pinned
from noria.features.partitions import LEAST_ROWS, Places, by_key, put_together, reading_little
from noria.features.ray_cluster import RayCluster
from noria.features.sources import FrameSource, PushSource, Source
from noria.processors import processors

if TYPE_CHECKING:
    import polars as pl

_PARTS_A_PROCESSOR = 2
"""More than one, so that a slow one keeps no other waiting; few, because each reads its sources anew."""
_TRIES = 3
"""How often Ray does a part again whose worker is gone. What a part says itself is final."""


def by_ray(asked: Iterable[Asked], as_of: AsOf, folder: Path, limit: int) -> list[pl.DataFrame]:
    """The engine that is Ray: whole keys in each part, no part's failure left untold.

    ``limit`` is what each task may take; Ray does at a time as many as a machine has processors, and memory for.
    Raises MissingExtra without Ray, what a part raises with the part named, Unavailable where its worker is gone.
    """
    cluster = RayCluster(processors())
    try:
        return _Join(cluster.api, as_of, folder.resolve(), limit).find(list(asked))
    finally:
        cluster.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows that are looked up in one view: which view of the call, and which part of how many."""

    view: int
    number: int
    name: str


@dataclass(frozen=True, slots=True)
class _Join:
    ray: Any
    as_of: AsOf
    folder: Path
    limit: int

    def find(self, asked: Sequence[Asked]) -> list[pl.DataFrame]:
        """The columns each lookup adds, for all rows or not at all."""
        cuts = [self._cut(one) for one in asked]
        running: dict[Any, _Part] = {}
        found: dict[tuple[int, int], pl.DataFrame] = {}
        try:
            for reference, part in self._started(asked, cuts):
                running[reference] = part
            while running:
                (ended,), _ = self.ray.wait(list(running), num_returns=1)
                part = running.pop(ended)
                found[part.view, part.number] = self._result(ended, part)
        finally:
            for one in running:
                self.ray.cancel(one, force=True)  # a part failed, and what the others find is not wanted
        return [put_together(cut, [found[view, number] for number in range(len(cut))]) for view, cut in enumerate(cuts)]

    def _cut(self, asked: Asked) -> list[Places]:
        """Parts of as many rows each as keeps all processors busy; without keys all rows are one."""
        wanted = _PARTS_A_PROCESSOR * max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        question = asked.question
        if not question.keys.width:
            return [np.arange(len(question))]
        return by_key(question.keys.to_series(), None, max(-(-len(question) // wanted), LEAST_ROWS))

    def _started(self, asked: Sequence[Asked], cuts: Sequence[Sequence[Places]]) -> Iterator[tuple[Any, _Part]]:
        task = self.ray.remote(max_retries=_TRIES, num_cpus=1, memory=self._memory())(_join_part)
        sent: dict[int, Any] = {}
        for view, (one, cut) in enumerate(zip(asked, cuts, strict=True)):
            rows = self._rows(one, sent)
            given = one if rows is None else _reading(one, _Sent.like(one.lookup.view.source))
            for number, places in enumerate(cut):
                name = f"part {number + 1} of {len(cut)} ({len(places)} rows) of feature view {one.lookup.view.name!r}"
                reference = task.remote(_pickled(given.take(places, cut)), rows, self.as_of, self.folder, self.limit)
                yield reference, _Part(view, number, name)

    def _rows(self, asked: Asked, sent: dict[int, Any]) -> Any:
        """What a function of the project gives, once for all parts of all views; None for other sources."""
        source = _history(asked.lookup.view.source)
        if not isinstance(source, FrameSource):
            return None
        if id(source.function) not in sent:
            with source.telling(self.folder, asked.lookup.view.name):
                rows = source.scan(self.folder).collect()
            sent[id(source.function)] = self.ray.put(pickle.dumps(rows))
        return sent[id(source.function)]

    def _memory(self) -> int:
        """What a task reserves: the limit, but not more than any machine has, or it would wait for ever."""
        machines = [node["Resources"].get("memory", 0) for node in self.ray.nodes() if node["Alive"]]
        return int(min(self.limit, max(machines, default=0)))

    def _result(self, ended: Any, part: _Part) -> pl.DataFrame:
        try:
            found: pl.DataFrame = self.ray.get(ended)
        except Exception as error:
            cause = getattr(error, "cause", None) or error  # Ray wraps what a task raises
            if isinstance(cause, NoriaError):
                cause.message = f"{part.name}: {cause.message}"
                raise cause from None
            why = str(cause).strip().partition("\n")[0]
            raise Unavailable(
                f"{part.name} was not joined: {type(cause).__name__}: {why}",
                remedy="Look at the worker's log and memory, and ask again: nothing was kept.",
            ) from error
        return found


@dataclass(frozen=True, kw_only=True)
class _Sent(Source):
    """The rows of a function of the project, which come beside what is asked for."""

    frame: pl.DataFrame | None = None

    @classmethod
    def like(cls, source: Source) -> _Sent:
        given = _history(source)
        return cls(
            name=given.name,
            timestamp_field=given.timestamp_field,
            created_timestamp_column=given.created_timestamp_column,
            field_mapping=dict(given.field_mapping),
        )

    def scan(self, folder: Path) -> pl.LazyFrame:  # noqa: ARG002  they lie in memory
        assert self.frame is not None
        return self.frame.lazy()


def _join_part(content: bytes, rows: bytes | None, as_of: AsOf, folder: Path, limit: int) -> pl.DataFrame:
    """One part, in a process of Ray's."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # the processor it has; before unpickling loads Polars
    asked: Asked = pickle.loads(content)
    source = asked.lookup.view.source
    if rows is not None and isinstance(source, _Sent):
        asked = _reading(asked, replace(source, frame=pickle.loads(rows)))
    with pinned(), reading_little(limit):
        return asked.find(as_of, folder, limit)


def _history(source: Source) -> Source:
    """What is read of a source: of one that is pushed to, its past."""
    return source.batch_source if isinstance(source, PushSource) and source.batch_source is not None else source


def _reading(asked: Asked, source: Source) -> Asked:
    """The same out of another source."""
    return replace(asked, lookup=replace(asked.lookup, view=replace(asked.lookup.view, source=source)))


def _pickled(asked: Asked) -> bytes:
    try:
        return pickle.dumps(asked)
    except Exception as error:  # what a source of one's own holds on to fails in any way it likes
        raise InvalidInput(
            f"source {asked.lookup.view.source.name!r} of feature view {asked.lookup.view.name!r} cannot be sent to a "
            f"worker: {error}",
            remedy='Join it with engine="here", or give a FileSource or SqlSource that workers read themselves.',
        ) from error
