"""On-demand features computed: one function, run over a frame of the past or over the rows of a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidInput
from noria.features.sources import Field
from noria.features.transformation_modes import (
    Mode,
    UserFunction,
    frame_of_pandas,
    frame_of_polars,
    lists_of_python,
    pandas_of,
)
from noria.features.types import FeatureType
from noria.features.values import typed_list, typed_series

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Input:
    """A column the function takes: a feature of the view ``source``, or a value that comes with the request."""

    source: str
    name: str
    dtype: FeatureType
    requested: bool

    @property
    def full_name(self) -> str:
        """``view__field``; a value of a request has no other name than its own."""
        return self.name if self.requested else f"{self.source}__{self.name}"


@dataclass(frozen=True)
class Transformation:
    """What computes the features ``outputs`` from ``inputs``, with all that is needed to run it.

    The function is handed every input under its full name, ``view__field``, and under the plain one where only one
    input has it. Inputs are in their declared types before, outputs after. Both ways of running it give the same
    values, provided that it takes each row for itself. What it gives beyond ``outputs`` is left out.

    - ``pandas``: a DataFrame with a row each, in the kinds of columns Arrow gives, as in Feast. A missing integer or
      boolean would change the kind of its whole column, so rows that miss the same ones are computed together: no row
      is seen otherwise than it would be alone. pandas has one missing value: null and NaN come back as null.
    - ``polars``: a DataFrame, and one is given back.
    - ``python``: column → list of values, None for null; with ``singleton`` column → value, once for each row.
    """

    name: str
    inputs: Sequence[Input]
    outputs: Sequence[Field]
    mode: Mode
    singleton: bool
    function: Callable[[Any], Any]

    @cached_property
    def _handed(self) -> Sequence[tuple[Input, Sequence[str]]]:
        """Each input with the names it is handed, and looked for, under."""
        used = Counter(one.name for one in self.inputs)
        alone = [(one, used[one.name] == 1 and not one.requested) for one in self.inputs]
        return [(one, (one.full_name, one.name) if plain else (one.full_name,)) for one, plain in alone]

    @cached_property
    def _function(self) -> UserFunction:
        names = [name for _, names in self._handed for name in names]
        documents = [name for one, names in self._handed if one.dtype.is_document for name in names]
        return UserFunction(self.name, self.function, names, self.outputs, documents)

    def warm_up(self) -> None:
        """Load what running it takes. Raises MissingExtra."""
        if self.mode == "pandas":
            pandas_of(self.name)

    def transform_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The outputs for every row of ``frame``, in order; inputs are found as ``view__field``, else as ``field``.

        Raises InvalidInput for an input that is missing or of another type, InvalidData when the function fails.
        """
        import polars as pl

        given: dict[str, pl.Series] = {}
        for one, names in self._handed:
            with self._reading(one):
                series = typed_series(one.dtype, frame[self._find(one, names, frame.columns)])
            given |= {name: series.alias(name) for name in names}
        if self.mode != "python":
            return self._compute(pl.DataFrame(given))
        lists = self._compute_lists({name: series.to_list() for name, series in given.items()}, frame.height)
        return pl.DataFrame([pl.Series(one.name, lists[one.name], one.dtype.polars()) for one in self.outputs])

    def transform_rows(self, columns: Mapping[str, Sequence[object]]) -> dict[str, list[object]]:
        """The outputs for the rows of a request as lists; ``columns`` too holds a value for each row.

        Raises InvalidInput for an input that is missing or of another type, InvalidData when the function fails.
        """
        given: dict[str, list[object]] = {}
        types: dict[str, FeatureType] = {}
        for one, names in self._handed:
            with self._reading(one):
                values = typed_list(one.dtype, columns[self._find(one, names, columns)])
            given |= dict.fromkeys(names, values)
            types |= dict.fromkeys(names, one.dtype)
        count = self._count(given)
        return self._compute_lists(given, count) if self.mode == "python" else self._framed(given, types)

    def _compute_lists(self, given: Mapping[str, list[object]], count: int) -> dict[str, list[object]]:
        return lists_of_python(self._function, given, count, singleton=self.singleton)

    def _framed(self, given: Mapping[str, list[object]], types: Mapping[str, FeatureType]) -> dict[str, list[object]]:
        import polars as pl

        frame = pl.DataFrame([pl.Series(name, values, types[name].polars()) for name, values in given.items()])
        return self._compute(frame).to_dict(as_series=False)

    def _compute(self, given: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        if given.is_empty():
            return pl.DataFrame(schema={one.name: one.dtype.polars() for one in self.outputs})
        return (frame_of_pandas if self.mode == "pandas" else frame_of_polars)(self._function, given)

    def _find(self, one: Input, names: Sequence[str], columns: Collection[str]) -> str:
        for name in names:
            if name in columns:
                return name
        what = f"request value {one.name!r} of {one.source!r}" if one.requested else f"feature {one.full_name!r}"
        raise InvalidInput(
            f"{what} is missing; on-demand feature view {self.name!r} is computed from it",
            remedy="Give one for every row." if one.requested else f"Of features there are: {', '.join(columns)}.",
        )

    def _count(self, given: Mapping[str, list[object]]) -> int:
        counts = {len(values): name for name, values in given.items()}
        if len(counts) > 1:
            found = ", ".join(f"{count} for {name!r}" for count, name in counts.items())
            raise InvalidInput(
                f"the inputs of on-demand feature view {self.name!r} differ in length: {found}",
                remedy="Give one value for every row.",
            )
        return next(iter(counts), 0)

    @contextmanager
    def _reading(self, one: Input) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise InvalidInput(
                f"on-demand feature view {self.name!r} cannot take {one.full_name!r}: {error}",
                remedy=f"It is declared as {one.dtype}.",
            ) from None
