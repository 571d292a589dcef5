"""Predictions that were logged before batches were: records, one a row, in lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import msgspec

from noria.structs import read_by_threads


@read_by_threads
class RowRecord(msgspec.Struct, array_like=True, frozen=True):
    """One answered request. Times are UTC milliseconds; ``features`` are in the order of the model's inputs."""

    prediction_id: str
    event_time: int
    received_at: int
    deployment: str
    revision: int
    variant: str
    model: str
    version: int
    entities: Mapping[str, str | int]
    features: Sequence[float | None]
    prediction: float
    score: float


_decode = msgspec.msgpack.Decoder(list[RowRecord]).decode


def records_together(payload: bytes) -> Iterator[Sequence[RowRecord]]:
    """The records of one frame, those together that one version answered at one time.

    Raises msgspec.ValidationError when the frame has none.
    """
    for _, records in groupby(_decode(payload), key=_answered_by):
        yield list(records)


def _answered_by(record: RowRecord) -> tuple[object, ...]:
    variant = (record.deployment, record.revision, record.variant, record.model, record.version)
    return (record.received_at, *variant, len(record.features))
