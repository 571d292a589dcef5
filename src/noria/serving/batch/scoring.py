"""Scoring a batch of rows: from a frame to predictions, and to what was refused and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidData, InvalidInput, NoriaError, NotFound
from noria.features import ViewSpec
from noria.features.times import parsed_instant
from noria.optimize.bundle import Bundle
from noria.serving.batch.columns import Columns
from noria.serving.batch.parts import Batch, Refusal
from noria.serving.inputs import OnlineInputs
from noria.serving.items import Outcome, outcome_of
from noria.serving.runtimes import Rows
from noria.serving.served import Served

if TYPE_CHECKING:
    import polars as pl

Join = Callable[["pl.DataFrame", str, Sequence[ViewSpec]], "pl.DataFrame"]
"""Adds the features of views, called ``view__field``, as of the time in a column."""
_ROWS_OWN = (InvalidInput, InvalidData, NotFound)
"""Errors that say something about a row, not about the world."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The output's rows of a batch, and the rows of it that have none."""

    frame: pl.DataFrame
    refused: Sequence[Refusal]


class Scorer:
    """Scores the batches of one job. ``at`` (UTC milliseconds) is when features are looked up."""

    def __init__(self, served: Served, columns: Columns, online: OnlineInputs, join: Join | None, at: int) -> None:
        self._served, self._columns, self._at = served, columns, at
        self._online, self._join = online, join

    def score(self, batch: Batch, ids: Callable[[int], str]) -> Scored:
        """``ids`` gives the prediction id of a row by its place. What is about the world and not a row is raised."""
        import polars as pl

        refused = list(batch.refused)
        places = np.arange(batch.frame.height)
        frame, places = _without(batch.frame, places, [one.place for one in refused])
        if self._columns.lacking:
            frame, places = self._completed(frame, places, refused)
        found: list[tuple[NDArray[np.int64], Outcome]] = []
        if frame.height:
            rows = rows_of(self._served.bundle, self._columns, frame)
            frame, places, rows = _finite(self._served.bundle, frame, places, rows, refused)
            found = outcomes(self._served, rows, places, refused) if len(rows) else []
        empty = pl.DataFrame(schema=dict(self._columns.written))
        pieces = [self._written(frame, places, *one, ids) for one in found]
        frame = pl.concat([empty, *pieces]) if len(pieces) != 1 else pieces[0]
        return Scored(frame, sorted(refused, key=lambda one: one.place))

    def _completed(
        self, frame: pl.DataFrame, places: NDArray[np.int64], refused: list[Refusal]
    ) -> tuple[pl.DataFrame, NDArray[np.int64]]:
        """The frame with the features it lacks, without the rows for which there are none."""
        bundle, columns = self._served.bundle, self._columns
        names = [name for view in columns.views for name in view.feature_names]
        if self._join is not None:
            when = columns.as_of
            timeless = _timeless(frame[when], places)
            refused += timeless
            frame, places = _without(frame, places, [one.place for one in timeless])
            joined = self._join(frame.select(list(dict.fromkeys([*columns.keys, when]))), when, columns.views)
            if not columns.computing:
                return frame.with_columns(joined.select(names)), places
            vectors: Sequence[Sequence[Any] | NoriaError] = joined.select(names).rows()
        else:
            entities = frame.select(columns.keys).rows(named=True) if columns.keys else [{}] * frame.height
            vectors = self._online.vectors(columns.views, [(one, self._at) for one in entities])
        if columns.computing:
            vectors, names = self._computed(frame, vectors), list(bundle.inputs[len(bundle.request_columns) :])
        faults = {place: one for place, one in enumerate(vectors) if isinstance(one, NoriaError)}
        for fault in faults.values():
            if not isinstance(fault, _ROWS_OWN):
                raise fault
        refused += [Refusal(int(places[place]), fault.message) for place, fault in faults.items()]
        frame, places = _without(frame, places, list(places[list(faults)]))
        known = [one for one in vectors if not isinstance(one, NoriaError)]
        return frame.with_columns(_looked_up(names, known, columns.texts)), places

    def _computed(
        self, frame: pl.DataFrame, vectors: Sequence[Sequence[Any] | NoriaError]
    ) -> list[Sequence[Any] | NoriaError]:
        """What the model takes besides the columns sent, on-demand features made of these and of ``vectors``."""
        import polars as pl

        assert self._served.computing is not None
        sent = frame.select(pl.col(column).alias(name) for name, column in self._columns.sent.items())
        found = self._served.computing.completed(sent.rows(named=True), vectors)
        return [one if isinstance(one, NoriaError) else one[0] for one in found]

    def _written(
        self,
        frame: pl.DataFrame,
        places: NDArray[np.int64],
        indices: NDArray[np.int64],
        outcome: Outcome,
        ids: Callable[[int], str],
    ) -> pl.DataFrame:
        """The output's rows: what is kept, and what the model says."""
        import polars as pl

        columns = self._columns
        kept = frame.select(list(columns.kept))
        if kept.width and len(indices) != frame.height:
            kept = kept[indices]
        values: dict[str, Any] = {
            "prediction": predictions(self._served.bundle, outcome, columns.outputs["prediction"]),
            "probability": outcome.probabilities,
            "score": outcome.scores,
        }
        if "prediction_id" in columns.outputs:
            values["prediction_id"] = [ids(int(place)) for place in places[indices]]
        series = [pl.Series(name, values[name], dtype=kind) for name, kind in columns.outputs.items() if name in values]
        version = pl.lit(str(self._served.version), pl.String).alias("model_version")
        added = kept.with_columns(series) if kept.width else pl.DataFrame(series)
        return added.with_columns(version).select(list(columns.written))


def outcomes(
    served: Served, rows: Rows, places: NDArray[np.int64], refused: list[Refusal]
) -> list[tuple[NDArray[np.int64], Outcome]]:
    """What the model says of ``rows``, and of which of them; after a failure of each half, to find the row.

    ``refused`` is told of the others, by their ``places`` in the batch.
    """
    indices: NDArray[np.int64] = np.arange(len(rows))
    pending, found = [indices], []
    while pending:
        some = pending.pop()
        part = rows if len(some) == len(rows) else rows.part(some)
        try:
            outcome = outcome_of(served.bundle, served.score(part), len(part))
        except Exception as error:
            if isinstance(error, NoriaError) and not isinstance(error, _ROWS_OWN):
                raise
            if len(some) == 1:
                refused.append(Refusal(int(places[some[0]]), str(getattr(error, "message", error))))
            else:
                pending += [some[len(some) // 2 :], some[: len(some) // 2]]
            continue
        good = _numbers(outcome, generic=served.bundle.task == "generic")
        for bad in np.flatnonzero(~good):
            refused.append(Refusal(int(places[some[bad]]), served.no_number(part, int(bad))))
        found.append((some, outcome) if good.all() else (some[good], _chosen(outcome, good)))
    return found


def sample_answers(served: Served, columns: Columns, batch: Batch) -> list[Any]:
    """What a model that needs no features says of those rows of a batch that it takes."""
    refused = list(batch.refused)
    frame, places = _without(batch.frame, np.arange(batch.frame.height), [one.place for one in refused])
    if not frame.height:
        return []
    rows = rows_of(served.bundle, columns, frame)
    _, places, rows = _finite(served.bundle, frame, places, rows, refused)
    return [answer for _, outcome in outcomes(served, rows, places, refused) for answer in outcome.predictions]


def rows_of(bundle: Bundle, columns: Columns, frame: pl.DataFrame) -> Rows:
    """The rows of a frame that holds all inputs, as the model takes them."""
    import polars as pl

    inputs, texts = bundle.inputs, set(columns.texts)
    column = {name: columns.inputs.get(name, name) for name in inputs}
    numbers = [pl.col(column[name]).cast(pl.Float64).alias(name) for name in inputs if name not in texts]
    strings = [pl.col(column[name]).cast(pl.String).alias(name) for name in inputs if name in texts]
    matrix = frame.select(numbers).to_numpy(order="c") if numbers else np.empty((frame.height, 0))
    words = np.column_stack([one.to_numpy() for one in frame.select(strings)]) if strings else None
    return Rows(matrix, words)


def prediction_type(bundle: Bundle, sample: Callable[[], Sequence[Any]]) -> Any:
    """The type of the output's predictions; for a model that may answer anything, that of its answers to a sample."""
    import polars as pl

    if bundle.task == "regression":
        return pl.Float64()
    if bundle.task == "classification":
        kinds = set(map(type, bundle.classes))
        if kinds == {float}:
            return pl.Float64()
        return pl.Boolean() if kinds == {bool} else pl.Int64() if kinds <= {bool, int} else pl.String()
    answers = sample()
    if answers and all(isinstance(one, bool) for one in answers):
        return pl.Boolean()
    is_number = answers and all(isinstance(one, int | float) for one in answers)
    return pl.Float64() if is_number else pl.String()


def predictions(bundle: Bundle, outcome: Outcome, kind: Any) -> Any:
    """The predictions as a column takes them: what is neither number nor text as JSON."""
    import polars as pl

    if bundle.task == "regression":
        return outcome.scores
    if bundle.task == "generic" and kind == pl.String:
        return [one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in outcome.predictions]
    return [str(one) for one in outcome.predictions] if kind == pl.String else outcome.predictions


def _timeless(times: pl.Series, places: NDArray[np.int64]) -> list[Refusal]:
    """The rows, by their ``places`` in the batch, without a time as of which features could be joined."""
    import polars as pl

    name, nulls = times.name, places[times.is_null().to_numpy()].tolist()
    found = [Refusal(place, f"{name!r} is null: there is no time to join as of") for place in nulls]
    if times.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return found
    texts = zip(places.tolist(), times.cast(pl.String).to_list(), strict=True)
    wrong = [(place, text) for place, text in texts if text is not None and parsed_instant(text) is None]
    return [*found, *(Refusal(place, f"{name!r} is {text!r}, no time in ISO 8601") for place, text in wrong)]


def _finite(
    bundle: Bundle, frame: pl.DataFrame, places: NDArray[np.int64], rows: Rows, refused: list[Refusal]
) -> tuple[pl.DataFrame, NDArray[np.int64], Rows]:
    """All three without the rows that hold an infinite number, which JSON has none of and few models take."""
    infinite = np.isinf(rows.numbers)
    if not infinite.any():
        return frame, places, rows
    names = bundle.number_names
    bad = np.asarray(infinite.any(axis=1))
    for row in np.flatnonzero(bad):
        refused.append(Refusal(int(places[row]), f"input {names[int(infinite[row].argmax())]!r} is infinite"))
    return frame.filter(~bad), places[~bad], rows.part(np.flatnonzero(~bad))


def _without(
    frame: pl.DataFrame, places: NDArray[np.int64], refused: Sequence[int]
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The frame without the rows at those places of the batch."""
    if not refused:
        return frame, places
    stays = ~np.isin(places, refused)
    return frame.filter(stays), places[stays]


def _looked_up(names: Sequence[str], vectors: Sequence[Any], texts: Sequence[str]) -> list[pl.Series]:
    import polars as pl

    columns = zip(*vectors, strict=True) if vectors else ([] for _ in names)
    kinds = [pl.String if name in texts else pl.Float64 for name in names]
    found = zip(names, columns, kinds, strict=True)
    return [pl.Series(name, list(values), dtype=kind, strict=False) for name, values, kind in found]


def _numbers(outcome: Outcome, *, generic: bool) -> NDArray[np.bool_]:
    """Of which rows the model said something."""
    good: NDArray[np.bool_] = np.isfinite(outcome.scores)
    if generic and any(one != one for one in outcome.predictions):  # what is not equal to itself is no number
        good &= np.array([one == one for one in outcome.predictions])
    return good


def _chosen(outcome: Outcome, good: NDArray[np.bool_]) -> Outcome:
    """The rows of an outcome that are good."""
    kept = np.flatnonzero(good).tolist()
    probabilities = None if outcome.probabilities is None else outcome.probabilities[kept]
    return Outcome([outcome.predictions[place] for place in kept], outcome.scores[kept], probabilities)
