"""The rows of a feature view, read in batches; of each batch only what some event still needs is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from noria.features.asof import NONE, Candidates, Newest, Rows
from noria.features.definitions import FeatureView
from noria.features.instants import Instants, Unit, ticks
from noria.features.keys import Entities
from noria.features.question import Question
from noria.features.search import Ascending, Ints
from noria.features.sources import CREATED, EVENT
from noria.features.threads import in_threads

if TYPE_CHECKING:
    import polars as pl

AsOf = Literal["known", "event"]

_EVENT, _CREATED = "__event", "__created"
_LEAST_ROWS, _MOST_ROWS = 1_000, 250_000
_BATCHES_HELD = 32
"""How many batches fit into the memory planned: read ahead, looked up by threads, and the winners of those before."""


@dataclass(frozen=True, slots=True)
class History:
    """All rows of a view that can matter, lazily, as ``Source.rows`` gives them, and how they are to be read."""

    view: FeatureView
    rows: pl.LazyFrame
    features: Sequence[str]
    as_of: AsOf
    folder: Path
    memory_limit_bytes: int

    def newest(self, question: Question) -> pl.DataFrame:
        """For each row of the question the features of the row it sees; nulls where it sees none."""
        winners = _Winners(self.rows.select(self.features).collect_schema())
        if not len(question.known):
            return winners.at(np.full(len(question), winners.nothing))
        unit = self._unit(question.at)
        slots = question.slots(unit)
        newest = Newest(slots, _ticks(self.view.ttl, unit))

        def looked_up(numbered: tuple[int, pl.DataFrame]) -> tuple[int, pl.DataFrame, Candidates]:
            start, batch = numbered
            rows = self._offered(batch, start, question.entities)
            return start, batch.select(self.features), newest.candidates(rows)

        for start, batch, candidates in in_threads(looked_up, self._batches(question.entities, unit)):
            won = newest.offer(candidates)
            winners.add(won, _rows_at(batch, won - start))
            if winners.height > len(question.known) + batch.height:
                winners.keep(newest.held())
        places = np.full(len(question), winners.nothing)
        places[question.known[slots.order]] = winners.places(newest.seen())  # what is sought in order is found faster
        return winners.at(places)

    def _batches(self, entities: Entities, unit: Unit) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows in the order of the source, each batch with the number of its first. Raises InvalidData."""
        import polars as pl

        schema, start = self.rows.collect_schema(), 0
        event, created = (ticks(pl.col(name), schema[name], unit) for name in (EVENT, CREATED))
        times = event.alias(_EVENT), pl.coalesce(created, event).alias(_CREATED)
        plan = entities.among(self.rows).select(*self.view.join_keys, *times, *self.features)
        with self.view.source.telling(self.folder, self.view.name):
            for batch in plan.collect_batches(chunk_size=self._batch_rows(plan), engine="streaming"):
                yield start, batch
                start += batch.height

    def _offered(self, batch: pl.DataFrame, start: int, entities: Entities) -> Rows:
        event, created = batch[_EVENT].to_numpy(), batch[_CREATED].to_numpy()
        visible = np.maximum(event, created) if self.as_of == "known" else event
        return Rows(entities.find(batch), event, created, visible, np.arange(start, start + batch.height))

    def _unit(self, at: Instants) -> Unit:
        """The finest that occurs."""
        schema = self.rows.collect_schema()
        units = {getattr(dtype, "time_unit", "") for dtype in (schema[EVENT], schema[CREATED], at.values.dtype)}
        return "ns" if "ns" in units else "us"

    def _batch_rows(self, plan: pl.LazyFrame) -> int:
        """How many rows may be read at once; texts and lists count as wide columns."""
        dtypes = plan.collect_schema().dtypes()
        row_bytes = sum(8 if dtype.is_numeric() or dtype.is_temporal() else 64 for dtype in dtypes)
        return min(max(self.memory_limit_bytes // (row_bytes * _BATCHES_HELD), _LEAST_ROWS), _MOST_ROWS)


class _Winners:
    """Features of rows that were the newest for some event when they were read, by number."""

    def __init__(self, schema: pl.Schema) -> None:
        self._numbers: list[Ints] = [np.empty(0, np.int64)]
        self._features = [schema.to_frame()]
        self.height = 0

    def add(self, numbers: Ints, features: pl.DataFrame) -> None:
        """Numbers must be greater than all before, in order."""
        self._numbers.append(numbers)
        self._features.append(features)
        self.height += features.height

    def keep(self, numbers: Ints) -> None:
        """Drop all but these, which must be in order."""
        features = self.at(self.places(numbers))
        self._numbers, self._features, self.height = [numbers], [features], features.height

    @property
    def nothing(self) -> int:
        """The place of a row of nulls, behind all others: to gather by an index with nulls takes twice as long."""
        return self.height

    def places(self, numbers: Ints) -> NDArray[np.intp]:
        """Where the rows with these numbers are; that of nothing for NONE."""
        found = Ascending.of(np.concatenate(self._numbers)).find(numbers)
        found[numbers == NONE] = self.nothing
        return found

    def at(self, places: NDArray[np.intp]) -> pl.DataFrame:
        """The features of the rows at these places."""
        import polars as pl

        nothing = self._features[0].clear(1)
        kept = pl.concat([*self._features, nothing], rechunk=True)  # and out of many pieces three times
        return _rows_at(kept, places)


def _rows_at(frame: pl.DataFrame, places: NDArray[np.integer[Any]]) -> pl.DataFrame:
    """Some rows; by places of the kind that Polars counts in, which it need not convert."""
    import polars as pl

    return frame[pl.Series(places.astype(np.uint32))] if frame.height < 2**32 else frame[places]


def _ticks(ttl: timedelta | None, unit: Unit) -> int | None:
    if ttl is None:
        return None
    return ttl // timedelta(microseconds=1) * (1000 if unit == "ns" else 1)
