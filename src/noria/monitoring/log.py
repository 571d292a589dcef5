"""The prediction log: what was asked, what was answered and, later, what turned out to be true.

Segments of length- and CRC-framed MessagePack batches, one folder a day of event time. Each process writes
segments of its own, so a killed writer can only tear the tail of its last one, which readers drop.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import msgspec

_FRAME = struct.Struct("<II")
_MILLIS_A_DAY = 86_400_000

Record = TypeVar("Record", bound="PredictionRecord | LabelRecord")


class PredictionRecord(msgspec.Struct, array_like=True, frozen=True):
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


class LabelRecord(msgspec.Struct, array_like=True, frozen=True):
    """The outcome of a prediction, and when it became known. ``event_time`` is that of the prediction."""

    prediction_id: str
    event_time: int
    observed_at: int
    label: float


class LogWriter:
    """Appends batches. One per process and kind; not safe to share between threads."""

    def __init__(self, root: Path, kind: str) -> None:
        self._folder = root / kind
        self._segment = f"{time.time_ns():020d}-{os.getpid()}.log"
        self._day = -1
        self._handle = -1
        self._encoder = msgspec.msgpack.Encoder()

    def append(self, records: Sequence[PredictionRecord] | Sequence[LabelRecord]) -> None:
        """Write the batch, each day's records to that day's folder, with one system call a day touched."""
        by_day: dict[int, list[Any]] = {}
        for record in records:
            by_day.setdefault(record.event_time // _MILLIS_A_DAY, []).append(record)
        for day, batch in by_day.items():
            payload = self._encoder.encode(batch)
            self._write(self._open(day), _FRAME.pack(len(payload), zlib.crc32(payload)) + payload)

    @staticmethod
    def _write(handle: int, frame: bytes) -> None:
        """All of ``frame`` or nothing: readers stop at a torn frame, so none may stand before a whole one."""
        written = os.write(handle, frame)
        if written < len(frame):
            os.ftruncate(handle, os.fstat(handle).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, day: int) -> int:
        if day != self._day:
            self.close()
            path = self._folder / _day_name(day) / self._segment
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._day = day
        return self._handle

    def close(self) -> None:
        """Close the open segment."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = self._day = -1


def read_predictions(root: Path, day: date | None = None) -> Iterator[PredictionRecord]:
    """The predictions of one day of event time, or of all; in order of time; a repeated id once, as last written."""
    return _latest(_read(root, "predictions", day, PredictionRecord))


def read_labels(root: Path, day: date | None = None) -> Iterator[LabelRecord]:
    """The labels of predictions made on ``day``, or of all; a repeated id is given once, as last written."""
    return _latest(_read(root, "labels", day, LabelRecord))


def find_prediction(root: Path, prediction_id: str) -> PredictionRecord | None:
    """The prediction of that id, newest day first, or None."""
    for folder in sorted((root / "predictions").glob("*"), reverse=True):
        for record in read_predictions(root, date.fromisoformat(folder.name)):
            if record.prediction_id == prediction_id:
                return record
    return None


def _latest(records: Iterator[Record]) -> Iterator[Record]:
    latest = {record.prediction_id: record for record in records}
    return iter(sorted(latest.values(), key=lambda record: (record.event_time, record.prediction_id)))


def _read(root: Path, kind: str, day: date | None, record_type: type[Record]) -> Iterator[Record]:
    decoder = msgspec.msgpack.Decoder(list[record_type])  # type: ignore[valid-type]
    days = "*" if day is None else day.isoformat()
    for segment in sorted((root / kind).glob(f"{days}/*.log")):
        for payload in _frames(segment.read_bytes()):
            yield from decoder.decode(payload)


def _frames(content: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + _FRAME.size <= len(content):
        length, checksum = _FRAME.unpack_from(content, offset)
        payload = content[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload
        offset += _FRAME.size + length


def _day_name(day: int) -> str:
    return date.fromordinal(date(1970, 1, 1).toordinal() + day).isoformat()
