"""Which entities a frame asks for and when, prepared once for all the views that are asked the same."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from noria.features.asof import NONE, Slots
from noria.features.instants import Instants, Unit
from noria.features.keys import Entities
from noria.features.partitions import Places
from noria.features.search import Ints

if TYPE_CHECKING:
    import polars as pl


class Question:
    """The rows of an entity frame: their keys, named and typed as in the sources, and when each happened."""

    def __init__(self, keys: pl.DataFrame, at: Instants) -> None:
        self.keys = keys
        self.at = at
        self._slots: dict[Unit, Slots] = {}

    def __len__(self) -> int:
        return len(self.at.values)

    def take(self, places: Places) -> Question:
        """Some of the rows."""
        return Question(self.keys[places], self.at.take(places))

    def asks(self, keys: pl.DataFrame) -> bool:
        """Whether these are its keys, of the same types."""
        return keys.schema == self.keys.schema and keys.equals(self.keys)

    @cached_property
    def entities(self) -> Entities:
        """Those of the rows, numbered."""
        return Entities.of(self.keys, len(self))

    @cached_property
    def known(self) -> Ints:
        """The places of the rows whose entity can occur in a source."""
        return np.flatnonzero(self.entities.numbers != NONE)

    def slots(self, unit: Unit) -> Slots:
        """The known rows by entity and time in a unit; there must be one."""
        if unit not in self._slots:
            self._slots[unit] = Slots.of(self.entities.numbers[self.known], self.at.ticks(unit)[self.known])
        return self._slots[unit]
