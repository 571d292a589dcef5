"""The newest eligible row of each (entity, time), found in one pass over rows that come in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from noria.features.search import Ascending, Ints

NONE = -1
"""The number of no row, and of no entity."""

_NOBODY = -2
"""Whose slot the last one is: no row is of this entity."""

_LOOKED_AT = 1000
_LEAST, _MOST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Rows:
    """Feature rows of entities: when each was true, created and first seen, and its number in the source.

    ``visible`` is ``event``, or the later of ``event`` and ``created``, in all of them.
    """

    entity: Ints
    event: Ints
    created: Ints
    visible: Ints
    number: Ints


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows that may be the best of the slot at which each is seen first."""

    slot: NDArray[np.intp]
    event: Ints
    created: Ints
    number: Ints

    def among(self, flags: NDArray[np.bool_]) -> Self:
        """Those whose flag is set."""
        if flags.all():
            return self
        parts = (self.slot, self.event, self.created, self.number)
        chosen = np.flatnonzero(flags)  # many times faster than to take by flags
        return type(self)(*(part.take(chosen) for part in parts))


@dataclass(frozen=True, slots=True)
class Slots:
    """What is asked: (entity, time), in this order; ``order`` has the place of each in what was given.

    One more slot at the end is nobody's: what no other sees comes there. Entities are numbers from 0, all times ticks
    of one unit; at least one must be asked for.
    """

    axis: _Axis
    order: NDArray[np.intp]
    places: Ascending
    entities: Ints
    times: Ints

    @classmethod
    def of(cls, entities: Ints, times: Ints) -> Self:
        """One of each pair."""
        axis = _Axis.of(times, int(entities.max(initial=0)) + 1)
        places = axis.place(entities, times)
        order = np.argsort(places)
        held = np.append(entities[order], _NOBODY)
        return cls(axis, order, Ascending.of(places[order]), held, np.append(times[order], _MOST))

    def first(self, rows: Rows) -> NDArray[np.intp]:
        """Which sees each row first; one of another entity where none does."""
        return self.places.find(self.axis.place(rows.entity, rows.visible))


class Newest:
    """For each slot the row it sees among all that were offered.

    A row counts at time t when ``visible <= t`` and, with a ttl, ``event >= t - ttl``; the greatest (event, created,
    number) wins. Feature rows are many and what is asked is few, so what is asked gets sorted: a search finds the
    first slot that sees a row, only the best row is kept there, and in the end the best of each slot is carried on to
    the later ones of its entity. Memory grows with what is asked, never with the rows.
    """

    def __init__(self, slots: Slots, ttl: int | None) -> None:
        self._slots = slots
        self._entities = slots.entities
        self._oldest = None if ttl is None else _minus(slots.times, ttl)
        self._event, self._created = np.full_like(self._entities, _LEAST), np.full_like(self._entities, _LEAST)
        self._number = np.full_like(self._entities, NONE)

    def candidates(self, rows: Rows) -> Candidates:
        """Those of the rows that could win; any thread may find them while another one offers.

        Rows of no entity (NONE), and those seen only after all times of theirs, come to a slot of another one. The best
        of a slot only gets better, so that one who reads it too early finds a candidate too many, never one too few.
        """
        slots, event = self._slots.first(rows), rows.event
        could_win = self._entities.take(slots, mode="clip") == rows.entity  # many times faster than by [slots]
        all_of_them = Candidates(slots, event, rows.created, rows.number)
        if _mostly_repeat(slots):  # in order of entities and times the next row outdoes all but the last of a slot
            could_win[:-1] &= ~((slots[:-1] == slots[1:]) & could_win[1:] & (event[:-1] < event[1:]))
            return self._not_too_old(all_of_them.among(could_win))
        could_win &= event >= self._event.take(slots, mode="clip")
        if self._oldest is not None:
            could_win &= event >= self._oldest.take(slots, mode="clip")
        return all_of_them.among(could_win)

    def _not_too_old(self, rows: Candidates) -> Candidates:
        return rows if self._oldest is None else rows.among(rows.event >= self._oldest.take(rows.slot, mode="clip"))

    def offer(self, rows: Candidates) -> Ints:
        """The numbers of those rows that are the best so far somewhere, in order.

        Of rows that share a slot the one with the latest event stays, then the latest created, then the last. Numbers
        must grow from row to row, and from offer to offer.
        """
        before = self._event[rows.slot]
        np.maximum.at(self._event, rows.slot, rows.event)
        self._created[rows.slot[before < self._event[rows.slot]]] = _LEAST
        rows = rows.among(rows.event == self._event[rows.slot])
        np.maximum.at(self._created, rows.slot, rows.created)
        rows = rows.among(rows.created == self._created[rows.slot])
        self._number[rows.slot] = rows.number  # of several for a slot the last stays
        best: Ints = rows.number[rows.number == self._number[rows.slot]]
        return best

    def held(self) -> Ints:
        """The numbers of all rows that are the best of a slot so far, in order."""
        return np.sort(self._number[self._number != NONE])

    def seen(self) -> Ints:
        """The number of the row that each slot sees, NONE where none is; in the order of the slots."""
        is_filled = self._number[:-1] != NONE
        filled, seen = np.flatnonzero(is_filled), np.full(len(is_filled), NONE)
        if len(filled):
            before = np.cumsum(is_filled) - 1  # of each slot, the filled one at or before it; -1: none
            winner = filled[self._greatest(filled)].take(before, mode="wrap")
            mine = (before >= 0) & (self._entities.take(winner) == self._entities[:-1])
            if self._oldest is not None:
                mine &= self._event.take(winner) >= self._oldest[:-1]
            seen = np.where(mine, self._number.take(winner), NONE)
        return seen

    def _greatest(self, filled: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of each filled slot, which of those of its entity up to it has the greatest row.

        Of two with one event the later slot has the row that was created later, or it would be in the earlier one.
        """
        entities, event = self._entities[filled], self._event[filled]
        places = _Axis.of(event, int(entities[-1]) + 1).place(entities, event)
        is_greatest = places == np.maximum.accumulate(places)
        return np.maximum.accumulate(np.where(is_greatest, np.arange(len(filled)), 0))


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
        places = entities * self.length
        if self.ranked is None:
            places += np.clip(times, self.first, self.after)
            places -= self.first
        else:
            places += np.searchsorted(self.ranked, times)
        return places


def _mostly_repeat(slots: NDArray[np.intp]) -> bool:
    """Whether most are the same as the one before, by a look at the first."""
    first = slots[:_LOOKED_AT]
    return int((first[1:] == first[:-1]).sum()) * 2 > len(first)


def _minus(times: Ints, ttl: int) -> Ints:
    """``times - ttl``, or the least number where it would be less; a ttl may be longer than a number can say."""
    left = min(ttl, 2**64)
    while left:
        step = min(left, _MOST)
        times, left = np.maximum(times, _LEAST + step) - step, left - step
    return times
