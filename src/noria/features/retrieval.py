"""What retrievals give: features as of the past or of now, in the frames and dictionaries callers work with."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidInput, MissingExtra
from noria.features.readers import FeatureColumn, Found, Status
from noria.features.selection import Plan
from noria.features.types import FeatureType, Json

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

EVENT = "event_timestamp"


class RetrievalJob:
    """A join that is done when its result is asked for, once.

    The rows are the entity frame's, in its order and with all its columns; the features come after them.
    """

    def __init__(
        self, entity_df: Any, join: Callable[[pl.DataFrame], pl.DataFrame], documents: Collection[str] = ()
    ) -> None:
        self._given = entity_df
        self._join = join
        self._documents = documents
        self._joined: pl.DataFrame | None = None

    def to_polars(self) -> pl.DataFrame:
        """As a Polars frame."""
        if self._joined is None:
            self._joined = self._join(as_polars(self._given))
        return self._joined

    def to_arrow(self) -> pa.Table:
        """As an Arrow table."""
        return self.to_polars().to_arrow()

    def to_df(self, validation_reference: None = None, timeout: int | None = None) -> pd.DataFrame:
        """As a pandas frame; what was given as one keeps its index and its columns' types.

        Integers beside missing ones are of pandas' nullable type, which no float rounds. ``timeout`` is Feast's: a join
        here takes as long as it takes. Raises InvalidInput for a ``validation_reference``.
        """
        del timeout
        if validation_reference is not None:
            raise InvalidInput(
                "to_df() takes no validation_reference",
                remedy="Check the frame it gives: noria.data.validation.validate(frame, columns, ...).",
            )
        joined, pd = self.to_polars(), _pandas()
        is_pandas = isinstance(self._given, pd.DataFrame)
        kept = set(map(str, self._given.columns)) if is_pandas else set()
        added = _to_pandas(joined.select(name for name in joined.columns if name not in kept))
        for name in self._documents:
            added[name] = [_decoded(text) for text in added[name]]
        if not is_pandas:
            return added
        return pd.concat([self._given, added.set_axis(self._given.index, axis="index")], axis="columns")


class OnlineResponse:
    """The features of some entities now: join keys first, then features, a value an entity.

    Made of what was asked (``plan``, ``entities``: columns by join key), what its views have, and what was computed
    from that, a column a field.
    """

    def __init__(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[Any]],
        found: Sequence[Found],
        computed: Sequence[Sequence[Any]] = (),
    ) -> None:
        self._plan, self._entities, self._found, self._computed = plan, entities, found, computed

    @property
    def types(self) -> Mapping[str, FeatureType]:
        """The types of the features."""
        return {one.name: one.dtype for one in self._plan.answered}

    @property
    def columns(self) -> Mapping[str, FeatureColumn]:
        """Values with each one's status and event time."""
        columns = [one[field] for one in self._found for field in one.fields] + list(map(_computed, self._computed))
        answer = {key: _given(self._entities[key]) for key in self._plan.keys}
        return answer | {name: columns[place] for name, place, *_ in self._plan.named_places}

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        """Name → values; with event times also ``name__ts`` → seconds since 1970, 0 where there is none."""
        columns = self._values()
        seconds = [[(micros or 0) // 1_000_000 for micros in one.event_timestamps] for one in self._found]
        if self._computed:
            columns += [[*values] for values in self._computed]
            seconds += [[0] * len(values) for values in self._computed]
        answer: dict[str, list[Any]] = {}
        for key in self._plan.keys:
            answer[key] = [*self._entities[key]]
            if include_event_timestamps:
                answer[f"{key}__ts"] = [0] * len(answer[key])
        for name, place, times_name, times_place in self._plan.named_places:
            answer[name] = columns[place]
            if include_event_timestamps:
                answer[times_name] = [*seconds[times_place]]
        for document in self._plan.documents:
            answer[document.name] = _documents(document.dtype, answer[document.name])
        return answer

    def _values(self) -> list[list[Any]]:
        """What was found, a new list a feature."""
        if self._found and len(self._found[0].values) == 1:  # the usual request, in half the time
            return [[value] for one in self._found for value in one.values[0]]
        return [values for one in self._found for values in one.columns()]

    def to_df(self, include_event_timestamps: bool = False) -> pd.DataFrame:
        """As a pandas frame, a row an entity."""
        pd = _pandas()
        columns = self.to_dict(include_event_timestamps)
        return pd.DataFrame({name: _pandas_column(pd, values) for name, values in columns.items()})

    def to_polars(self, include_event_timestamps: bool = False) -> pl.DataFrame:
        """As a Polars frame, a row an entity."""
        import polars as pl

        return pl.DataFrame(self.to_dict(include_event_timestamps), strict=False)

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:
        """As an Arrow table, a row an entity."""
        return self.to_polars(include_event_timestamps).to_arrow()


def _given(values: Sequence[Any]) -> FeatureColumn:
    return FeatureColumn(values, [Status.PRESENT] * len(values), [None] * len(values))


def _computed(values: Sequence[Any]) -> FeatureColumn:
    statuses = [Status.NULL_VALUE if value is None else Status.PRESENT for value in values]
    return FeatureColumn(values, statuses, [None] * len(values))


def _documents(dtype: FeatureType, values: Sequence[Any]) -> list[Any]:
    """What the JSON texts of a column say; of type Json, which may be anything, also a broken text."""
    return [_decoded(value, value if dtype == Json else None) for value in values]


def _decoded(text: Any, broken: Any = None) -> Any:
    """What a JSON text says; ``broken`` for one that is none, so that it spoils no other row's answer."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return broken


def _to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """The frame in pandas; a float would round integers, so those beside missing ones are nullable integers."""
    pd, given = _pandas(), frame.to_pandas()
    for name, dtype in frame.schema.items():
        if dtype.is_integer() and frame[name].null_count():
            given[name] = pd.array(frame[name].to_list(), dtype=str(dtype))
    return given


def _pandas_column(pd: Any, values: list[Any]) -> Any:
    """Values for a column: integers beside missing ones as nullable integers, which no float rounds."""
    kinds = {value.__class__ for value in values}
    return pd.array(values, dtype="Int64") if kinds == {int, type(None)} else values


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise MissingExtra(
            "a pandas frame needs pandas, which is not installed",
            remedy="pip install 'noria[pandas]', or call to_polars().",
        ) from None
    return pandas


def as_polars(frame: Any) -> pl.DataFrame:
    """A pandas, Arrow or Polars frame, or columns of values, as Polars. Raises InvalidInput for anything else."""
    import polars as pl

    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    is_pandas = hasattr(frame, "to_records")
    if not (is_pandas or hasattr(frame, "__arrow_c_stream__") or isinstance(frame, Mapping)):
        raise InvalidInput(
            f"a {type(frame).__name__} is no frame of entities", remedy="Give a pandas, Polars or Arrow frame."
        )
    try:
        made = pl.from_pandas(_with_text_names(frame)) if is_pandas else pl.DataFrame(frame)
    except InvalidInput:
        raise
    except Exception as error:  # Arrow, NumPy and pandas each have errors of their own for what Polars cannot hold
        raise InvalidInput(
            f"the frame cannot be read: {str(error).partition(chr(10))[0]}",
            remedy="Give each column one type: numbers of 64 bits, texts, times, booleans, or lists of those.",
        ) from error
    return made


def _with_text_names(frame: Any) -> Any:
    """A pandas frame whose columns have texts for names. Raises InvalidInput when two would have the same."""
    names = list(map(str, frame.columns))
    if len(set(names)) < len(names):
        raise InvalidInput(
            f"two columns of the frame are called {next(n for n in names if names.count(n) > 1)!r}",
            remedy="Give each column its own name.",
        )
    return frame.set_axis(names, axis="columns")


def event_time_of(frame: pl.DataFrame) -> str:
    """The column that says when each row is: ``event_timestamp``, or the only instant. Raises InvalidInput."""
    import polars as pl

    if EVENT in frame.columns:
        return EVENT
    instants = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime | pl.Date)]
    if len(instants) != 1:
        raise InvalidInput(
            f"the entity frame has no column {EVENT!r}; its columns: {', '.join(frame.columns)}",
            remedy="Add when each row is: the moment at which its features are wanted.",
        )
    return instants[0]
