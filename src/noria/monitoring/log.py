"""The prediction log: what was asked, what was answered and, later, what turned out to be true.

Predictions are logged as the batches they were scored in: columns of bytes, which cost a tenth of a record a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from noria.monitoring.older_log import RowRecord, records_together
from noria.monitoring.segments import MILLIS_A_DAY, SegmentWriter, frames, segments
from noria.structs import read_by_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREDICTIONS, SHADOWS, LABELS, REWARDS, FAILURES = "predictions", "shadows", "labels", "rewards", "failures"
DROPPED = "dropped"
"""The code of a failure that is none of the version's: a shadow was behind, and was not asked."""

MOST_AHEAD_MILLIS = 86_400_000
"""A day: how far ahead the clock may be of whoever observed a reward. What is later would never be final."""

Feature = float | str | None


@read_by_threads
class PredictionBatch(msgspec.Struct, array_like=True, frozen=True):
    """Rows scored together by one version. Times are UTC milliseconds; the bytes are little-endian numpy arrays.

    ``prediction_ids`` has one id a row, or a single one that the rows number from 0. ``numbers`` is float64 of shape
    (rows, numeric inputs), ``strings`` a list a row; ``string_places`` says where those stand among the inputs.
    ``scores`` is float64 (rows,), ``latencies`` float32 (rows,) in seconds, empty where an older Noria logged none.
    ``predictions`` is float64 (rows,), or the labels themselves where they are no numbers. ``entities``, ``units`` and
    ``beside`` are empty, or one a row.
    """

    received_at: int
    deployment: str
    revision: int
    variant: str
    model: str
    version: int
    prediction_ids: Sequence[str]
    event_times: bytes
    numbers: bytes
    scores: bytes
    predictions: bytes | Sequence[str]
    latencies: bytes
    strings: Sequence[Sequence[str | None]] = ()
    string_places: Sequence[int] = ()
    entities: Sequence[Mapping[str, str | int]] = ()
    units: Sequence[str] = ()
    beside: Sequence[Sequence[Any]] = ()


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One answered row. Times are UTC milliseconds; ``features`` are in the order of the model's inputs.

    ``beside`` are values that computed features were made of, but that are no inputs: columns sent, then looked up.
    """

    prediction_id: str
    event_time: int
    received_at: int
    deployment: str
    revision: int
    variant: str
    model: str
    version: int
    entities: Mapping[str, str | int]
    features: Sequence[Feature]
    prediction: float | str
    score: float
    latency_seconds: float = 0.0
    unit: str = ""
    beside: Sequence[Any] = ()


@read_by_threads
class LabelRecord(msgspec.Struct, array_like=True, frozen=True):
    """The outcome of a prediction, and when it became known. ``event_time`` is that of the prediction."""

    prediction_id: str
    event_time: int
    observed_at: int
    label: float


@read_by_threads
class RewardRecord(msgspec.Struct, array_like=True, frozen=True):
    """What a prediction or a unit was worth to the business, and when that became known.

    It counts in ``deployment`` alone: units are the same people everywhere. Without one it counts in every deployment.
    Of those with the same ``key`` one counts (``monitoring.reward_keys``); each without a key counts.
    """

    observed_at: int
    value: float
    prediction_id: str = ""
    unit: str = ""
    metric: str = "reward"
    deployment: str = ""
    key: str = ""


@read_by_threads
class FailureRecord(msgspec.Struct, array_like=True, frozen=True):
    """Requests that a version did not answer, through no fault of the client; of a shadow rows, and for any reason."""

    received_at: int
    deployment: str
    revision: int
    variant: str
    model: str
    version: int
    code: str
    requests: int = 1
    unit: str = ""


_decode_batch = msgspec.msgpack.Decoder(PredictionBatch).decode
_R = TypeVar("_R", LabelRecord, RewardRecord, FailureRecord)
_T = TypeVar("_T")


class PredictionLog:
    """Appends to the log of one process. Threads may share it."""

    def __init__(self, root: Path) -> None:
        self._writers = {kind: SegmentWriter(root / kind) for kind in (PREDICTIONS, SHADOWS, LABELS, REWARDS, FAILURES)}
        self._encode = msgspec.msgpack.Encoder().encode

    def predictions(self, batch: PredictionBatch, days: Sequence[int], kind: str = PREDICTIONS) -> None:
        """Write a batch into the ``days`` of its rows' event times: counted from 1970, each once.

        Raises OSError when the disk does not take it.
        """
        if len(days) == 1:
            self._writers[kind].append(days[0], self._encode(batch))
            return
        for day in days:
            self._writers[kind].append(day, self._encode(part_of(batch, _rows_of_day(batch, day))))

    def labels(self, records: Sequence[LabelRecord]) -> None:
        """Write labels into the day of their predictions. Raises OSError."""
        self._records(LABELS, records, [record.event_time for record in records])

    def rewards(self, records: Sequence[RewardRecord]) -> None:
        """Write rewards into the day they were observed. Raises OSError."""
        self._records(REWARDS, records, [record.observed_at for record in records])

    def failures(self, records: Sequence[FailureRecord]) -> None:
        """Write failures into the day they happened. Raises OSError."""
        self._records(FAILURES, records, [record.received_at for record in records])

    def close(self) -> None:
        """Close the open segments."""
        for writer in self._writers.values():
            writer.close()

    def _records(self, kind: str, records: Sequence[_R], times: Sequence[int]) -> None:
        by_day: dict[int, list[_R]] = {}
        for record, time in zip(records, times, strict=True):
            by_day.setdefault(time // MILLIS_A_DAY, []).append(record)
        for day, batch in by_day.items():
            self._writers[kind].append(day, self._encode(batch))


def read_predictions(root: Path, day: date | None = None, kind: str = PREDICTIONS) -> Iterator[PredictionRecord]:
    """The predictions of one day of event time, or of all; in order of time; a repeated id once, as last written."""
    latest = {record.prediction_id: record for batch in read_batches(root, day, kind) for record in rows_of(batch)}
    return iter(sorted(latest.values(), key=lambda record: (record.event_time, record.prediction_id)))


def read_batches(root: Path, day: date | None = None, kind: str = PREDICTIONS) -> Iterator[PredictionBatch]:
    """The batches of one day of event time, or of all, as they were written."""
    for segment in segments(root / kind, day):
        yield from batches_of(segment)


def batches_of(segment: Path) -> Iterator[PredictionBatch]:
    """The batches of one segment."""
    return (batch for _, payload in frames(segment.read_bytes()) for batch in batches_in(payload))


def batches_in(payload: bytes) -> Sequence[PredictionBatch]:
    """The batches of one frame: one, or several of a frame that an older Noria wrote."""
    try:
        return (_decode_batch(payload),)
    except msgspec.ValidationError:
        return [_batch_of(records) for records in records_together(payload)]


def _batch_of(records: Sequence[RowRecord]) -> PredictionBatch:
    import numpy as np

    first = records[0]
    return PredictionBatch(
        first.received_at,
        first.deployment,
        first.revision,
        first.variant,
        first.model,
        first.version,
        [record.prediction_id for record in records],
        event_times=np.array([record.event_time for record in records], np.int64).tobytes(),
        numbers=np.array([record.features for record in records], np.float64).tobytes(),
        scores=np.array([record.score for record in records], np.float64).tobytes(),
        predictions=np.array([record.prediction for record in records], np.float64).tobytes(),
        latencies=b"",
        entities=[record.entities for record in records],
    )


def labels_of(root: Path, prediction_ids: Collection[str], day: date) -> Mapping[str, LabelRecord]:
    """The labels of predictions made on ``day``, by prediction; where several were given, the last one.

    Also those that were given another event time than their prediction has: that of the outcome, days later, or one of
    another time zone. Those that name the right day go before.
    """
    wanted, earliest = set(prediction_ids), (day - timedelta(days=1)).isoformat()
    days = sorted(folder.name for folder in (root / LABELS).glob("*") if folder.name >= earliest)
    own = [day.isoformat()] if day.isoformat() in days else []
    found: dict[str, LabelRecord] = {}
    for name in [*(other for other in days if other not in own), *own]:
        records = read_records(root, LABELS, LabelRecord, date.fromisoformat(name))
        found |= {record.prediction_id: record for record in records if record.prediction_id in wanted}
    return found


def read_records(root: Path, kind: str, record_type: type[_R], day: date | None = None) -> Iterator[_R]:
    """The records of a kind in the order they were written, of one day or of all."""
    decode = msgspec.msgpack.Decoder(list[record_type]).decode  # type: ignore[valid-type]
    for segment in segments(root / kind, day):
        for _, payload in frames(segment.read_bytes()):
            yield from decode(payload)


def find_prediction(root: Path, prediction_id: str) -> PredictionRecord | None:
    """The prediction of that id, newest day first, or None."""
    for folder in sorted((root / PREDICTIONS).glob("*"), reverse=True):
        found = None
        for batch in read_batches(root, date.fromisoformat(folder.name)):
            if _holds(batch, prediction_id):
                found = next((row for row in rows_of(batch) if row.prediction_id == prediction_id), found)
        if found is not None:
            return found
    return None


def rows_of(batch: PredictionBatch) -> Iterator[PredictionRecord]:
    """The rows of a batch, one record each."""
    columns = BatchColumns.of(batch)
    shared = (batch.received_at, batch.deployment, batch.revision, batch.variant, batch.model, batch.version)
    for row, prediction_id in enumerate(columns.prediction_ids):
        yield PredictionRecord(
            prediction_id,
            int(columns.event_times[row]),
            *shared,
            batch.entities[row] if batch.entities else {},
            columns.features(row),
            columns.predictions[row],
            float(columns.scores[row]),
            float(columns.latencies[row]),
            batch.units[row] if batch.units else "",
            batch.beside[row] if batch.beside else (),
        )


@dataclass(frozen=True, slots=True)
class BatchColumns:
    """A batch's bytes as arrays; shapes as ``PredictionBatch`` says."""

    batch: PredictionBatch
    prediction_ids: Sequence[str]
    event_times: NDArray[np.int64]
    numbers: NDArray[np.float64]
    scores: NDArray[np.float64]
    predictions: Sequence[float] | Sequence[str]
    latencies: NDArray[np.float32]

    @classmethod
    def of(cls, batch: PredictionBatch) -> BatchColumns:
        """The columns of ``batch``."""
        import numpy as np

        times = np.frombuffer(batch.event_times, np.int64)
        ids, predictions = batch.prediction_ids, batch.predictions
        if len(ids) != len(times):
            ids = [f"{ids[0]}-{row}" for row in range(len(times))]
        return cls(
            batch,
            ids,
            times,
            np.frombuffer(batch.numbers, np.float64).reshape(len(times), -1),
            np.frombuffer(batch.scores, np.float64),
            np.frombuffer(predictions, np.float64).tolist() if isinstance(predictions, bytes) else predictions,
            np.frombuffer(batch.latencies, np.float32) if batch.latencies else np.zeros(len(times), np.float32),
        )

    def features(self, row: int) -> list[Feature]:
        """The inputs of one row in the model's order; None where one was missing."""
        found: list[Feature] = [None if value != value else value for value in self.numbers[row].tolist()]
        if self.batch.strings:
            for place, text in zip(self.batch.string_places, self.batch.strings[row], strict=True):
                found.insert(place, text)
        return found


def _holds(batch: PredictionBatch, prediction_id: str) -> bool:
    if prediction_id in batch.prediction_ids:
        return True
    base, _, number = prediction_id.rpartition("-")
    return len(batch.prediction_ids) == 1 and batch.prediction_ids[0] == base and number.isdigit()


def _rows_of_day(batch: PredictionBatch, day: int) -> NDArray[np.intp]:
    import numpy as np

    return np.flatnonzero(np.frombuffer(batch.event_times, np.int64) // MILLIS_A_DAY == day)


def part_of(batch: PredictionBatch, chosen: NDArray[np.intp]) -> PredictionBatch:
    """Some rows of a batch."""
    import numpy as np

    columns = BatchColumns.of(batch)
    rows: list[int] = chosen.tolist()

    def of(listed: Sequence[_T]) -> Sequence[_T]:
        return [listed[row] for row in rows] if listed else listed

    predictions = batch.predictions
    return msgspec.structs.replace(
        batch,
        prediction_ids=of(columns.prediction_ids),
        event_times=columns.event_times[chosen].tobytes(),
        numbers=columns.numbers[chosen].tobytes(),
        scores=columns.scores[chosen].tobytes(),
        predictions=np.array(of(columns.predictions)).tobytes() if isinstance(predictions, bytes) else of(predictions),
        latencies=columns.latencies[chosen].tobytes(),
        strings=of(batch.strings),
        entities=of(batch.entities),
        units=of(batch.units),
        beside=of(batch.beside),
    )
