"""The newest eligible row of each (entity, time), found in one pass over rows that come in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NONE = -1
"""The number of no row, and of no entity."""

_NOBODY = -2
"""Whose slot the last one is: no row is seen there."""

_LEAST, _MOST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Rows:
    """Feature rows of known entities: when each was true, created and first seen, and its number in the source."""

    entity: Ints
    event: Ints
    created: Ints
    visible: Ints
    number: Ints

    def take(self, chosen: NDArray[np.intp]) -> Self:
        """The rows at these places."""
        parts = (self.entity, self.event, self.created, self.visible, self.number)
        return type(self)(*(part[chosen] for part in parts))


class Newest:
    """For each asked (entity, time) the row it sees among all that were offered.

    A row counts at time t when ``visible <= t`` and, with a ttl, ``event >= t - ttl``; the greatest (event, created,
    number) wins. Feature rows are many and what is asked is few, so what is asked gets sorted: a binary search finds
    the first slot (entity, time) that sees a row, only the best row is kept there, and in the end the best of each
    slot is carried on to the later ones of its entity. Memory grows with what is asked, never with the rows.
    Entities are numbers from 0, all times ticks of one unit; at least one must be asked for.
    """

    def __init__(self, entities: Ints, times: Ints, ttl: int | None) -> None:
        self._axis = _Axis.of(times, int(entities.max(initial=0)) + 1)
        places = self._axis.place(entities, times)
        self._order = np.argsort(places)
        self._places = np.append(places[self._order], _MOST)
        self._entities = np.append(entities[self._order], _NOBODY)
        self._oldest = None if ttl is None else np.append(_minus(times[self._order], ttl), _MOST)
        self._event, self._created = np.full_like(self._entities, _LEAST), np.full_like(self._entities, _LEAST)
        self._number = np.full_like(self._entities, NONE)

    def offer(self, rows: Rows) -> Ints:
        """The numbers of those rows that are the best so far somewhere. Numbers must grow from offer to offer.

        Rows of no entity (NONE), and those seen only after all times of theirs, come to a slot of another one.
        """
        slots = self._first_slots(rows)
        eligible = (self._entities[slots] == rows.entity) & (rows.event >= self._event[slots])
        if self._oldest is not None:
            eligible &= rows.event >= self._oldest[slots]
        chosen = np.flatnonzero(eligible)
        return self._keep_best(rows.take(chosen), slots[chosen])

    def _first_slots(self, rows: Rows) -> NDArray[np.intp]:
        """Where each row is seen first.

        Rows that come sorted by entity and event are merged with the slots, but for those created later than the slot
        found so. Others are sorted before the search: one next to the one before finds its memory in the cache.
        """
        places, by_event = (self._axis.place(rows.entity, times) for times in (rows.visible, rows.event))
        if (by_event[1:] >= by_event[:-1]).all():
            slots = _merged(self._places, by_event)
            late = np.flatnonzero(places > self._places[slots])
            slots[late] = np.searchsorted(self._places, places[late])
            return slots
        order = np.argsort(places)
        slots = np.empty_like(order)
        slots[order] = np.searchsorted(self._places, places[order])
        return slots

    def _keep_best(self, rows: Rows, slots: NDArray[np.intp]) -> Ints:
        """Of rows that share a slot the one with the latest event stays, then the latest created, then the last."""
        before = self._event[slots]
        np.maximum.at(self._event, slots, rows.event)
        self._created[slots[before < self._event[slots]]] = _LEAST
        newest = np.flatnonzero(rows.event == self._event[slots])
        rows, slots = rows.take(newest), slots[newest]
        np.maximum.at(self._created, slots, rows.created)
        newest = np.flatnonzero(rows.created == self._created[slots])
        rows, slots = rows.take(newest), slots[newest]
        np.maximum.at(self._number, slots, rows.number)
        return np.sort(rows.number[rows.number == self._number[slots]])

    def held(self) -> Ints:
        """The numbers of all rows that are the best of a slot so far, in order."""
        return np.sort(self._number[self._number != NONE])

    def numbers(self) -> Ints:
        """The number of the row each asked (entity, time) sees, in the order they were asked; NONE where none is."""
        ascending = self._ascending()
        rank = np.zeros_like(self._number)
        rank[ascending] = np.arange(1, len(ascending) + 1)
        base = len(rank) + 1
        carried = np.maximum.accumulate(self._entities[:-1] * base + rank[:-1]) % base
        winner = np.append(len(rank) - 1, ascending)[carried]
        seen = self._number[winner]
        if self._oldest is not None:
            seen[self._event[winner] < self._oldest[:-1]] = NONE
        found: Ints = np.empty_like(seen)
        found[self._order] = seen
        return found

    def _ascending(self) -> NDArray[np.intp]:
        """The slots that have a row, from the least row to the greatest."""
        filled = np.flatnonzero(self._number != NONE)
        ascending = filled[np.argsort(self._event[filled])]
        event = self._event[ascending]
        same = np.flatnonzero(event[1:] == event[:-1])
        tied = np.union1d(same, same + 1)
        slots = ascending[tied]
        ascending[tied] = slots[np.lexsort((self._number[slots], self._created[slots], self._event[slots]))]
        return ascending


@dataclass(frozen=True, slots=True)
class _Axis:
    """Times as small numbers, so that an entity and a time fit into one: ticks since the first, or else ranks."""

    first: int
    after: int
    length: int
    ranked: Ints | None

    @classmethod
    def of(cls, times: Ints, entities: int) -> Self:
        first, after = int(times.min()), min(int(times.max()) + 1, _MOST)
        length = after - first + 1
        if length * (entities + 1) <= _MOST:
            return cls(first, after, length, None)
        ranked = np.unique(times)
        return cls(first, after, len(ranked) + 1, ranked)

    def place(self, entities: Ints, times: Ints) -> Ints:
        """One number that orders by entity, then time; a time between two that are asked counts as the later."""
        if self.ranked is None:
            return entities * self.length + (np.clip(times, self.first, self.after) - self.first)
        return entities * self.length + np.searchsorted(self.ranked, times)


def _merged(places: Ints, sought: Ints) -> NDArray[np.intp]:
    """``np.searchsorted(places, sought)`` for ascending ``sought``: looks up the places between them instead."""
    first, last = np.searchsorted(places, sought[[0, -1]]) if len(sought) else (0, 0)
    passed = np.searchsorted(sought, places[first:last], side="right")
    return first + np.cumsum(np.bincount(passed, minlength=len(sought) + 1)[: len(sought)])


def _minus(times: Ints, ttl: int) -> Ints:
    """``times - ttl``, or the least number where it would be less; a ttl may be longer than a number can say."""
    left = min(ttl, 2**64)
    while left:
        step = min(left, _MOST)
        times, left = np.maximum(times, _LEAST + step) - step, left - step
    return times
