"""What the data plane asks of whatever runs a model: load, score, unload."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeadlineExceeded

if TYPE_CHECKING:
    from noria.optimize.bundle import Bundle

Floats = NDArray[np.float64]
Tensors = Mapping[str, NDArray[Any]]

WAITED_FOR_UNTIL: ContextVar[float | None] = ContextVar("waited_for_until", default=None)
"""Until when (monotonic) somebody waits for what the runtime is asked in this thread; None where there is no saying.

A runtime that can give a call up without harm to others may do so some time after that, by raising ``Hung``.
"""


class Hung(DeadlineExceeded):
    """The model gave no answer while anybody waited for one, and was begun anew."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to score: ``numbers`` is (rows, numeric inputs), NaN where one is missing; ``strings`` (rows, texts).

    A model of tensors gets ``tensors``, the rows along the first axis of each, and no numbers: (rows, 0).
    """

    numbers: Floats
    strings: NDArray[np.object_] | None = None
    params: Mapping[str, Any] | None = None
    tensors: Tensors | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, places: NDArray[np.intp]) -> Rows:
        """Some of the rows."""
        strings, tensors = self.strings, self.tensors
        return Rows(
            self.numbers[places],
            None if strings is None else strings[places],
            self.params,
            None if tensors is None else {name: tensor[places] for name, tensor in tensors.items()},
        )


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a classifier says that does not always say its likeliest class.

    ``places`` are those of its labels among the bundle's classes, (rows,); ``probabilities`` are (rows, classes).
    """

    places: NDArray[np.intp]
    probabilities: Floats

    def __len__(self) -> int:
        return len(self.places)


class Runtime(Protocol):
    """A loaded model. ``score`` and ``infer`` are called from up to ``concurrency`` threads at once.

    ``inline`` says that a call computes here and holds nothing up but the processor, so that the event loop may make
    it by itself while it is short.
    """

    inline: bool
    concurrency: int

    def score(self, rows: Rows) -> Floats | Labelled | Sequence[Any]:
        """Of a model of columns, one entry a row: the value, the probability of the second of two classes, or those of
        all classes, (rows, classes), or labels with these; of a generic model whatever it answers, as JSON can hold
        it."""

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """Of a model of tensors: its outputs by name, each with an entry a row.

        ``params`` are as ``Rows`` has them. A runtime whose ``infer`` takes tensors alone is not given any.
        """

    def unload(self) -> None:
        """Let go of everything; nothing is asked of it afterwards."""


class Loader(Protocol):
    """What an entry point of the group ``noria.runtimes`` gives: it loads a model's folder."""

    def __call__(self, folder: Path, bundle: Bundle) -> Runtime: ...


def decoded(content: bytes) -> Any:
    """The JSON of an answer. Raises ValueError for none, and for texts with half a character, which no JSON can hold.

    Such a half comes as an escape: answers without escapes of that kind are not looked through.
    """
    found = json.loads(content)
    if b"\\ud" in content or b"\\uD" in content:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def columns_of(rows: Rows, bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The rows as columns by name, in the model's order: float64, or texts."""
    places, names = set(bundle.string_places), bundle.inputs
    numbers, texts = iter(range(rows.numbers.shape[1])), iter(range(len(places)))
    found: dict[str, NDArray[Any]] = {}
    for place, name in enumerate(names):
        if place in places:
            assert rows.strings is not None
            found[name] = rows.strings[:, next(texts)]
        else:
            found[name] = rows.numbers[:, next(numbers)]
    return found
