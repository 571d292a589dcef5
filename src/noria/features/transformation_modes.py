"""A project's function called in each of its modes, and what it gives checked against what was declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from noria.errors import InvalidData, MissingExtra
from noria.features.sources import Field
from noria.features.user_code import failed_at, place_of
from noria.features.values import typed_list, typed_series

if TYPE_CHECKING:
    import polars as pl

Mode = Literal["pandas", "python", "polars"]

_CHANGING = ("Int32", "Int64", "Boolean")
"""Types whose column in pandas is of another kind as soon as one value is missing."""


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function of the project and the words to blame it with: whose features, what it takes and gives."""

    view: str
    function: Callable[[Any], Any]
    inputs: Sequence[str]
    outputs: Sequence[Field]
    documents: Sequence[str] = ()
    """Those inputs whose values are dictionaries: handed over as such, but for Polars, which gets their JSON."""

    def __call__(self, given: object) -> Any:
        """What the function gives. Raises InvalidData with its line when it raises."""
        try:
            return self.function(given)
        except Exception as error:
            where = failed_at(error, self.function)
            raise InvalidData(
                f"on-demand feature view {self.view!r} failed at {where}: {type(error).__name__}: {error}",
                remedy=f"It is given: {', '.join(self.inputs)}. Any of them may be null.",
            ) from error

    def fault(self, what: str, remedy: str) -> InvalidData:
        """The error for something wrong that the function gave."""
        return InvalidData(f"on-demand feature view {self.view!r} ({place_of(self.function)}) {what}", remedy=remedy)

    def lacking(self, name: str, found: Sequence[object]) -> InvalidData:
        """The error for a feature that the function did not give."""
        listed = ", ".join(map(str, found)) or "nothing"
        return self.fault(f"gives no {name!r}", f"Its schema lists it; it gives: {listed}.")

    def wrong(self, output: Field, error: ValueError) -> InvalidData:
        """The error for values of another type than declared."""
        return self.fault(f"gives a wrong {output.name!r}: {error}", f"Its schema says {output.dtype}.")


def lists_of_python(
    function: UserFunction, given: Mapping[str, list[object]], count: int, *, singleton: bool
) -> dict[str, list[object]]:
    """The outputs as lists of ``count`` values, by one call for all rows, or with ``singleton`` one for each."""
    if count == 0:
        return {one.name: [] for one in function.outputs}
    given = {**given, **{name: decoded(given[name]) for name in function.documents}}
    found = _singletons(function, given, count) if singleton else _lists(function, given, count)
    done: dict[str, list[object]] = {}
    for one in function.outputs:
        try:
            done[one.name] = typed_list(one.dtype, found[one.name])
        except ValueError as error:
            raise function.wrong(one, error) from None
    return done


def decoded(texts: Sequence[Any]) -> list[object]:
    """Dictionaries from the JSON texts they are kept as."""
    return [None if text is None else msgspec.json.decode(text) for text in texts]


def _singletons(function: UserFunction, given: Mapping[str, list[object]], count: int) -> dict[str, list[object]]:
    done: dict[str, list[object]] = {one.name: [] for one in function.outputs}
    for row in range(count):
        found = _mapping(function, function({name: values[row] for name, values in given.items()}), "value")
        for name, values in done.items():
            values.append(found[name])
    return done


def _lists(function: UserFunction, given: Mapping[str, list[object]], count: int) -> Mapping[str, list[object]]:
    found = _mapping(function, function(dict(given)), "list")
    return {one.name: _list(function, one.name, found[one.name], count) for one in function.outputs}


def _list(function: UserFunction, name: str, values: Any, count: int) -> list[object]:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        raise function.fault(f"gives a {type(values).__name__} for {name!r}", f"Give a list of {count}, one for a row.")
    if len(values) != count:
        raise function.fault(f"gives {len(values)} values of {name!r} for {count} rows", "Give one for every row.")
    return list(values)


def _mapping(function: UserFunction, found: object, of: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise function.fault(f"gives a {type(found).__name__}", f"Give a dict of feature → {of}.")
    for one in function.outputs:
        if one.name not in found:
            raise function.lacking(one.name, list(found))
    return found


def frame_of_polars(function: UserFunction, given: pl.DataFrame) -> pl.DataFrame:
    """The outputs in the declared types, by one call with all rows."""
    import polars as pl

    found = function(given)
    if not isinstance(found, pl.DataFrame):
        raise function.fault(f"gives a {type(found).__name__}", "Give a Polars DataFrame with a row for each.")
    _check_frame(function, found.columns, found.height, given.height)
    return pl.DataFrame([_typed(function, one, found[one.name]) for one in function.outputs])


def frame_of_pandas(function: UserFunction, given: pl.DataFrame) -> pl.DataFrame:
    """The outputs in the declared types; one call for all rows that miss the same integers and booleans."""
    import polars as pl

    missing = [pl.col(name).is_null() for name, dtype in given.schema.items() if str(dtype) in _CHANGING]
    if not missing or not any(given.select(pl.any_horizontal(missing).any()).row(0)):
        return _pandas(function, given)
    place, kind = "__row", "__missing"
    marked = given.with_row_index(place).with_columns(pl.struct(missing).rank("dense").alias(kind))
    parts = marked.partition_by(kind, maintain_order=True)
    done = [_pandas(function, part.drop(place, kind)).with_columns(part[place]) for part in parts]
    return pl.concat(done).sort(place).drop(place)


def pandas_of(view: str) -> Any:
    """The package, for a view that is computed by it. Raises MissingExtra."""
    try:
        import pandas
    except ImportError:
        raise MissingExtra(
            f"on-demand feature view {view!r} needs pandas, which is not installed",
            remedy="Install noria[pandas], or write the function with mode='polars' or 'python'.",
        ) from None
    return pandas


def _pandas(function: UserFunction, given: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    pd = pandas_of(function.view)
    handed = given.to_pandas().copy()  # Arrow's memory is read-only, and functions like to write
    for name in function.documents:
        handed[name] = decoded(given[name].to_list())
    index = handed.index
    found = function(handed)
    if not isinstance(found, pd.DataFrame):
        raise function.fault(f"gives a {type(found).__name__}", "Give a pandas DataFrame with a row for each.")
    _check_frame(function, list(found.columns), len(found), given.height)
    if not found.index.equals(index):
        raise function.fault("gives its rows in another order", "Keep the index of what it is given.")
    return pl.DataFrame([_typed(function, one, _of_pandas(found[one.name])) for one in function.outputs])


def _of_pandas(column: Any) -> pl.Series | list[object]:
    """A column of pandas with null for its missing values, NaN among them."""
    import pandas as pd
    import polars as pl

    if column.dtype != object:
        return pl.Series(pl.from_pandas(column, nan_to_null=True))
    return [None if value is pd.NA or (isinstance(value, float) and value != value) else value for value in column]


def _typed(function: UserFunction, output: Field, values: pl.Series | list[object]) -> pl.Series:
    import polars as pl

    try:
        if isinstance(values, list):
            values = pl.Series(typed_list(output.dtype, values), dtype=output.dtype.polars())
        return typed_series(output.dtype, values).alias(output.name)
    except ValueError as error:
        raise function.wrong(output, error) from None


def _check_frame(function: UserFunction, columns: Sequence[str], height: int, expected: int) -> None:
    for one in function.outputs:
        if columns.count(one.name) != 1:
            raise function.lacking(one.name, columns)
    if height != expected:
        raise function.fault(f"gives {height} rows for {expected}", "Give one for every row it is given.")
