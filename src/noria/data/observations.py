"""The table a model learns from: one row an event, its label once that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from noria.data.validation import validate
from noria.errors import InvalidConfig
from noria.schema import Column, Kind

if TYPE_CHECKING:
    import polars as pl

_AS_NUMBERS = (
    "A model here learns numbers from numbers: make it one in `source`, such as (pl.col(...) == 'yes').cast(pl.Int8). "
    "A model that takes texts is trained elsewhere, logged by an MLflow client, and deployed."
)


@dataclass(frozen=True, slots=True)
class Observations:
    """The events to predict.

    ``source`` gives a frame that keeps the contract of ``columns``. ``key`` names a row, ``event_time`` is when the
    prediction is asked for, ``label`` the outcome (0/1 or a number; null when it never became known) and
    ``label_time`` when it became known. ``request_columns`` are the numbers a client sends with a request;
    ``slices`` the columns by which quality is reported apart.
    """

    name: str
    source: Callable[[], pl.DataFrame]
    columns: Sequence[Column]
    key: str
    event_time: str
    label: str
    label_time: str
    request_columns: Sequence[str]
    slices: Sequence[str] = ()

    def __post_init__(self) -> None:
        declared = {column.name for column in self.columns}
        used = (self.key, self.event_time, self.label, self.label_time, *self.request_columns, *self.slices)
        if unknown := [name for name in used if name not in declared]:
            raise InvalidConfig(
                f"observations {self.name!r} use columns without a contract: {', '.join(unknown)}",
                remedy="Add a Column(...) for each to `columns`.",
            )
        kinds = {column.name: column.kind for column in self.columns}
        for name in (self.event_time, self.label_time):
            if kinds[name] != "instant":
                raise self._misused(name, kinds[name], "is a time", 'Declare it as "instant", a datetime in UTC.')
        for name in (self.label, *self.request_columns):
            if kinds[name] in ("text", "instant"):
                use = "is the label" if name == self.label else "is sent to the model"
                raise self._misused(name, kinds[name], use, _AS_NUMBERS)

    def _misused(self, name: str, kind: Kind, use: str, remedy: str) -> InvalidConfig:
        return InvalidConfig(
            f"column {name!r} of observations {self.name!r} {use}, and cannot be of kind {kind!r}", remedy=remedy
        )

    def load(self) -> pl.DataFrame:
        """All rows in order of event time. Raises InvalidData naming the failing rows."""
        import polars as pl

        frame = validate(self.source(), self.columns, name=self.name, key=self.key)
        times = pl.col(self.event_time, self.label_time).dt.cast_time_unit("ms")
        return frame.with_columns(times).sort(self.event_time, self.key)

    def labelled(self, frame: pl.DataFrame, *, since: datetime | None, until: datetime) -> pl.DataFrame:
        """The rows of events in [``since``, ``until``) whose label was known by ``until``."""
        import polars as pl

        known = pl.col(self.label).is_not_null() & (pl.col(self.label_time) <= until)
        in_time = pl.col(self.event_time) < until
        if since is not None:
            in_time &= pl.col(self.event_time) >= since
        return frame.filter(in_time & known)
