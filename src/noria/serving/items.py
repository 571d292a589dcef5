"""What waits for its score: one row, or the block of rows of one request, with the version that was chosen for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import NoriaError
from noria.optimize.bundle import Bundle
from noria.serving.runtimes import Floats, Labelled, Tensors

if TYPE_CHECKING:
    from noria.serving.inputs import PredictionRequest
    from noria.serving.live import Arm, Live


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one row. ``probability`` is that of the prediction, ``score`` that of the last of two classes."""

    prediction_id: str
    prediction: Any
    model: str
    model_version: str
    variant: str
    route_revision: int
    probability: float | None = None
    confidence: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model says of rows: predictions as JSON has them, and (rows,) probabilities and scores.

    ``probabilities`` is None for what has none. ``scores`` is the value, the probability of the last of two classes,
    or that of the predicted one of several; NaN where the model gave no number. ``all_classes`` is (rows, classes).
    A model of tensors has ``tensors``, and predictions of None.
    """

    predictions: Sequence[Any]
    scores: Floats
    probabilities: Floats | None = None
    all_classes: Floats | None = None
    tensors: Tensors | None = None

    def part(self, start: int, count: int) -> Outcome:
        """The rows from ``start`` on."""
        rows = slice(start, start + count)
        return Outcome(
            self.predictions[rows],
            self.scores[rows],
            None if self.probabilities is None else self.probabilities[rows],
            None if self.all_classes is None else self.all_classes[rows],
            None if self.tensors is None else {name: tensor[rows] for name, tensor in self.tensors.items()},
        )


Result = tuple[Outcome, int]
"""What a batch came to, and at which of its rows those of an item begin."""


class Answer(Protocol):
    """Who waits for what becomes of an item; a future of asyncio is one. All is called in the event loop."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def cancelled(self) -> bool:
        """Whether it need not be scored."""
        ...

    def set_result(self, result: Result, /) -> None:
        """It was scored."""
        ...

    def set_exception(self, error: NoriaError, /) -> None:
        """It was not, and why."""
        ...


@dataclass(slots=True, eq=False)
class Item:
    """One request's rows. Of a block, ``numbers`` is (rows, numeric inputs) and ``texts`` (rows, texts).

    ``received`` and ``deadline`` are on the monotonic clock, ``event_time`` is UTC milliseconds. A row is ``complete``
    once it holds what is looked up and computed, too; ``request`` is what it was made of, None for a block. ``beside``
    are values that only computed features were made of.
    """

    live: Live
    arm: Arm
    count: int
    prediction_id: str
    event_time: int
    received: float
    deadline: float
    answer: Answer
    numbers: list[Any] | Floats
    texts: list[str | None] | NDArray[np.object_] | None
    entities: Mapping[str, str | int]
    unit: str
    complete: bool
    request: PredictionRequest | None = None
    params: Mapping[str, Any] | None = None
    tensors: Tensors | None = None
    beside: Sequence[Any] = ()

    @property
    def is_block(self) -> bool:
        """Whether the rows are arrays already."""
        return self.numbers.__class__ is not list

    @property
    def prediction_ids(self) -> Sequence[str]:
        """The id of every row."""
        return ids_of(self.prediction_id, self.count)

    def move_to(self, arm: Arm) -> None:
        """Have another arm answer; that one takes it on."""
        self.arm.batcher.release(self.count)
        arm.batcher.rows += self.count
        self.arm = arm

    def refuse(self, error: NoriaError) -> None:
        """Answer with an error, unless the client is gone."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def settle(self, result: Result) -> None:
        """Answer, unless the client is gone."""
        if not self.answer.done():
            self.answer.set_result(result)

    def prediction(self, outcome: Outcome, at: int, row: int = 0) -> Prediction:
        """The answer to one of its rows, which stands in ``outcome`` at ``at``."""
        variant, probability, score = self.arm.variant, None, None
        if outcome.probabilities is not None:
            probability = float(outcome.probabilities[at])
            score = None if outcome.all_classes is not None else float(outcome.scores[at])
        return Prediction(
            self.prediction_id if self.count == 1 else f"{self.prediction_id}-{row}",
            outcome.predictions[at],
            variant.model,
            self.arm.version,
            variant.name,
            self.live.table.revision,
            probability,
            None if probability is None else confidence(probability),
            score,
        )


def ids_of(prediction_id: str, count: int) -> Sequence[str]:
    """The ids of a request's rows: its own, numbered where there are several."""
    return [prediction_id] if count == 1 else [f"{prediction_id}-{row}" for row in range(count)]


def outcome_of(bundle: Bundle, found: Floats | Labelled | Sequence[Any] | Tensors, rows: int | None = None) -> Outcome:
    """What a runtime's scores mean, by the bundle's task and classes.

    Raises NoriaError when they are not one for each of as many ``rows``, where that is given.
    """
    if isinstance(found, Mapping):
        rows = _rows_of_tensors(found) if rows is None else rows
        if not found or any(tensor.shape[:1] != (rows,) for tensor in found.values()):
            given = ", ".join(f"{name!r} of shape {list(tensor.shape)}" for name, tensor in found.items())
            raise _miscounted(rows, given or "no output")
        return Outcome([None] * rows, np.zeros(rows), tensors=found)
    if isinstance(found, Labelled):
        return _labelled(bundle, found, len(found) if rows is None else rows)
    if rows is not None:
        found = _one_a_row(found, rows)
    if bundle.task == "generic" or not isinstance(found, np.ndarray):
        answers = found.tolist() if isinstance(found, np.ndarray) else list(map(_plain, found))
        return Outcome(answers, np.full(len(answers), 0.0))
    if bundle.task == "regression":
        if found.ndim > 1:
            found = _one_value(found)
        return Outcome(found.tolist(), found)
    found = np.minimum(found, 1.0)  # sums of float32 come out a hair above
    if found.ndim == 1 and len(bundle.classes) == 2:
        positive = found > bundle.decision_threshold
        return Outcome(_labels(bundle, positive.view(np.uint8)), found, np.where(positive, found, 1 - found))
    found = found.reshape(len(found), -1)
    best = found.argmax(axis=1)
    probabilities = found[np.arange(len(found)), best]
    return Outcome(_labels(bundle, best), probabilities, probabilities, found)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _one_value(found: Floats) -> Floats:
    """The value of each row, also where it stands in a column. Raises NoriaError where a row has several."""
    if found.size == len(found):
        return found.reshape(-1)
    raise _miscounted(len(found), f"an array of shape {list(found.shape)}")


def _labelled(bundle: Bundle, found: Labelled, rows: int) -> Outcome:
    """Labels with the probability of each. Raises NoriaError when there are not as many as rows."""
    classes, every = len(bundle.classes), found.probabilities
    if every.shape != (rows, classes) or len(found) != rows:
        raise _miscounted(rows, f"probabilities of shape {list(every.shape)}")
    own = every[np.arange(rows), found.places]
    if classes == 2:
        return Outcome(_labels(bundle, found.places), every[:, 1], own)
    return Outcome(_labels(bundle, found.places), own, own, every)


def _rows_of_tensors(found: Tensors) -> int:
    return len(next(iter(found.values()))) if found else 0


def _one_a_row(found: Floats | Sequence[Any], rows: int) -> Floats | Sequence[Any]:
    """What a runtime answered, which may also be an iterator. Raises NoriaError when it is not one entry a row."""
    if isinstance(found, np.ndarray):
        if found.shape[:1] == (rows,):
            return found
        raise _miscounted(rows, f"an array of shape {list(found.shape)}")
    if not isinstance(found, Iterable):
        raise _miscounted(rows, "nothing" if found is None else f"one {type(found).__name__}")
    listed = list(found)
    if len(listed) != rows:
        raise _miscounted(rows, f"{len(listed)} entries")
    return listed


def _miscounted(rows: int, given: str) -> NoriaError:
    return NoriaError(
        f"the model answered {rows} row{'s' if rows != 1 else ''} with {given}",
        remedy="Its runtime must give one entry a row, in every output.",
    )


def _labels(bundle: Bundle, places: NDArray[np.integer[Any]]) -> list[Any]:
    classes = bundle.classes
    found: list[Any] = places.tolist()
    are_places = classes == (0, 1) and classes[0].__class__ is int  # False and 0.0 are 0 to Python, not to clients
    return found if are_places else [classes[place] for place in found]


def confidence(probability: float) -> str:
    """The word for the probability of the predicted class: very_high from 0.9, high 0.7, medium 0.5, else low."""
    if probability >= 0.9:
        return "very_high"
    if probability >= 0.7:
        return "high"
    return "medium" if probability >= 0.5 else "low"
