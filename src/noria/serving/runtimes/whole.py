"""Columns of whole numbers: MLflow's long, integer and boolean hold neither null nor fraction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.optimize.bundle import Bundle
from noria.serving.runtimes.base import Floats

WHOLE: Mapping[str, tuple[float, float]] = {
    "long": (1 - 2.0**53, 2.0**53),
    "integer": (-(2.0**31), 2.0**31),
    "boolean": (0.0, 2.0),
}
"""The least value of each kind, and the least above all of them. As doubles, whole numbers beyond 2**53 are not told
apart."""


class WholeColumns:
    """Which of a model's numbers must be whole, and within what: casting others would change them unseen.

    A model made of such numbers never saw others, and the library it was made with refuses them.
    """

    def __init__(self, places: Mapping[str, int], bundle: Bundle, nulls: bool) -> None:
        self._names, self._kinds = list(places), bundle.kinds
        self._places = np.array(list(places.values()), dtype=np.intp)
        self._least, self._beyond = np.array([WHOLE[bundle.kinds[name]] for name in places]).T
        self._may_lack = np.array([nulls and name in bundle.optional for name in places])

    @classmethod
    def of(cls, bundle: Bundle, *, nulls: bool = False) -> WholeColumns | None:
        """Those of a bundle; None when it has none. ``nulls`` says that optional ones may be missing."""
        places = {name: place for place, name in enumerate(bundle.number_names) if bundle.kinds.get(name) in WHOLE}
        return cls(places, bundle, nulls) if places else None

    def check(self, numbers: Floats) -> None:
        """Raises InvalidInput that names the column of the first value that does not fit."""
        values = numbers[:, self._places]
        fits = (values >= self._least) & (values < self._beyond) & (np.trunc(values) == values)
        if not fits.all() and not (fits := fits | (np.isnan(values) & self._may_lack)).all():
            raise self._refusal(values, fits)

    def _refusal(self, values: Floats, fits: NDArray[np.bool_]) -> InvalidInput:
        row, column = (int(place) for place in np.argwhere(~fits)[0])
        value, name = float(values[row, column]), self._names[column]
        shown = "null" if np.isnan(value) else repr(value)
        where = f" in row {row}" if len(values) > 1 else ""
        return InvalidInput(
            f"column {name!r} is {shown}{where}, and the model takes {_WORDS[self._kinds[name]]} there",
            remedy="Send every value in the kind that the model was logged with; /model/info names them.",
        )


_WORDS: Mapping[str, str] = {
    "long": "whole numbers below 2^53",
    "integer": "whole numbers of 32 bits",
    "boolean": "true or false",
}
