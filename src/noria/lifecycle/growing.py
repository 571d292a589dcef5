"""Frames that grow as a log does, in which each id counts once, and of each unit one row is the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

_MOST_CHUNKS = 64


def hash_of(name: str) -> int:
    """A name as a number to compare and join by, 0 for none: texts of millions of requests would fill the memory."""
    return hash(name) if name else 0


def hashes_of(names: Iterable[str]) -> NDArray[np.int64]:
    """The same of many."""
    return np.fromiter(map(hash_of, names), np.int64)


class _Seen:
    """The keys that came so far, in sorted runs, each at least twice as long as the next.

    A few searches for each new key, and few merges: millions are not gone through again at each look.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def first(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of ``keys`` come for the first time, among themselves and ever."""
        new, places = np.unique(keys, return_index=True)
        for run in self._runs:
            fresh = run[np.minimum(np.searchsorted(run, new), len(run) - 1)] != new
            new, places = new[fresh], places[fresh]
        if len(new):
            self._runs.append(new)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # which merges what is sorted
            self._runs.append(merged)
        found = np.zeros(len(keys), np.bool_)
        found[places] = True
        return found


class Growing:
    """A frame that grows: what was added is put together when it is asked for.

    Of rows with the same value in the column ``once`` the first stays: a request that was sent again, after its answer
    was lost, is one draw. Where rows are ``of_units`` the column ``first`` tells a unit's first, and those without one.
    """

    def __init__(self, types: Mapping[str, type], once: str = "", *, of_units: bool = False) -> None:
        import polars as pl

        self._types, self._once, self._of_units = types, once, of_units
        self._ids, self._units = _Seen(), _Seen()
        self._added: list[Mapping[str, NDArray[Any]]] = []
        self._frame = pl.DataFrame({name: np.empty(0, kind) for name, kind in types.items()})
        if of_units:
            self._frame = self._frame.with_columns(first=pl.lit(value=True))

    def add(self, columns: Mapping[str, Any]) -> None:
        """Take rows in; a single value stands for all of them."""
        rows = len(next(array for array in columns.values() if isinstance(array, np.ndarray)))
        self._added.append(
            {name: np.broadcast_to(np.asarray(columns[name], kind), rows) for name, kind in self._types.items()}
        )

    def frame(self) -> pl.DataFrame:
        """All that was added, in order."""
        import polars as pl

        if self._added:
            added = {name: np.concatenate([one[name] for one in self._added]) for name in self._types}
            self._added.clear()
            if self._once:
                kept = self._ids.first(added[self._once])
                added = added if kept.all() else {name: values[kept] for name, values in added.items()}
            if self._of_units:
                added["first"] = self._first(added["unit"])
            self._frame = pl.concat([self._frame, pl.DataFrame(added)], rechunk=self._frame.n_chunks() > _MOST_CHUNKS)
        return self._frame

    def _first(self, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        first: NDArray[np.bool_] = units == 0
        if not first.all():
            first[~first] = self._units.first(units[~first])
        return first
