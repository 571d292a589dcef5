"""Features made of the events in a window of time that ends when they are asked for. Spelled as in Feast."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

from noria.errors import InvalidConfig, InvalidData
from noria.features.types import Array, FeatureType, Float64, Int64

FUNCTIONS = ("count", "count_distinct", "sum", "mean", "min", "max", "last_K")
"""What an aggregation may do; K of ``last_K`` is a number, as in ``last_3``."""

_LAST = re.compile(r"last_([1-9]\d{0,5})")
_NUMBERS = ("Bool", "Int32", "Int64", "Float32", "Float64")


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One feature: what ``function`` gives for ``column`` over the events of the last ``time_window``.

    At time t an event counts when it happened in (t - time_window, t] and was known at t. As in SQL a null counts for
    nothing, and where no value is left ``count`` and ``count_distinct`` give 0, all others null. A NaN is a value:
    it makes ``sum``, ``mean``, ``min`` and ``max`` NaN. ``last_K`` lists the last K values, the newest at the end.
    ``count`` without a column counts events. Each row of the source is an event, also one like another.

    The feature is called ``name``, else ``FUNCTION_COLUMN_SECONDSs`` as in Feast. ``slide_interval`` is taken for
    Feast's sake and changes nothing: windows end at the very time asked for, not at the last slide before it.
    """

    column: str = ""
    function: str = ""
    time_window: timedelta = timedelta()
    slide_interval: timedelta | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.last and self.function not in FUNCTIONS[:-1]:
            raise InvalidConfig(
                f"an aggregation of {self.column!r} has the function {self.function!r}",
                remedy=f"Functions are: {', '.join(FUNCTIONS)} with K a number.",
            )
        if not self.column and self.function != "count":
            raise InvalidConfig(f"{self.function!r} needs a column", remedy="Write column=...; only count needs none.")
        if not isinstance(self.time_window, timedelta) or self.time_window <= timedelta():
            raise InvalidConfig(
                f"the aggregation {self.function} of {self.column!r} has no time_window",
                remedy="Say how far it looks back: time_window=timedelta(hours=1).",
            )
        object.__setattr__(self, "name", self.name or self._derived_name())

    def _derived_name(self) -> str:
        parts = [self.function, self.column, f"{int(self.time_window.total_seconds())}s"]
        return "_".join(part for part in parts if part)

    @property
    def last(self) -> int:
        """The K of ``last_K``; 0 for every other function."""
        found = _LAST.fullmatch(self.function)
        return int(found[1]) if found else 0

    def dtype(self, view: str, columns: Mapping[str, FeatureType]) -> FeatureType:
        """The type of the feature, given the types of the events' columns. Raises InvalidConfig."""
        if not self.column:
            return Int64
        if (column := columns.get(self.column)) is None:
            raise InvalidConfig(
                f"feature view {view!r} aggregates {self.column!r}, which its schema does not list",
                remedy=f"List what the events hold: schema=[Field(name={self.column!r}, dtype=...), ...].",
            )
        found = self._result(column)
        if found is None:
            raise InvalidConfig(
                f"feature view {view!r} takes {self.function} of {self.column!r}, which is {column}",
                remedy="Sums and means are of numbers; lists can only be counted.",
            )
        return found

    def _result(self, column: FeatureType) -> FeatureType | None:
        if self.function == "count":
            return Int64
        if column.inner is not None or (self.function in ("sum", "mean") and column.name not in _NUMBERS):
            return None
        if self.function == "count_distinct":
            return Int64
        if self.last:
            return Array(column)
        if self.function == "sum":
            return Float64 if column.name.startswith("Float") else Int64
        return Float64 if self.function == "mean" else column

    def document(self) -> Sequence[object]:
        """What says all of it, as JSON."""
        return [self.column, self.function, nanoseconds(self.time_window), self.name]


def nanoseconds(span: timedelta) -> int:
    """The length of ``span``, exact."""
    return (span // timedelta(microseconds=1)) * 1000


def too_large(view: str, name: str, column: str) -> InvalidData:
    """The error for a sum of integers that does not fit its feature."""
    return InvalidData(
        f"{name!r} of feature view {view!r} is a sum of integers beyond 64 bits",
        remedy=f"Declare {column!r} as Float64, or look back less far.",
    )


def float_sum(values: Iterable[float]) -> float:
    """The sum rounded once, as ``math.fsum`` gives it, also of numbers whose sum is infinite or none at all."""
    values = list(values)
    try:
        return math.fsum(values)
    except ValueError:  # infinities of both signs
        return math.nan
    except OverflowError:
        exact = sum(map(Fraction, values))
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
