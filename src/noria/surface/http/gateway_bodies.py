"""What the gateway reads: bodies of bounded size, decoded, with the field at fault named."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any, TypeVar

import msgspec

from noria.errors import InvalidInput
from noria.monitoring.log import LabelRecord
from noria.serving.inputs import PredictionRequest, ill_typed, parse_instant

LARGEST_BODY_BYTES = 16 * 1024 * 1024

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Decoded = TypeVar("Decoded")


class TooLarge(InvalidInput):
    """The body is larger than a gateway takes."""


class PredictBody(PredictionRequest, frozen=True, forbid_unknown_fields=True):
    """The body of POST /predict: one row, or many as ``instances``."""

    instances: list[PredictionRequest] | None = None


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome; ``event_time`` is that of its prediction, ``observed_at`` now when left out."""

    prediction_id: Annotated[str, msgspec.Meta(min_length=1)]
    event_time: str
    label: float
    observed_at: str = ""


class LabelsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /labels."""

    labels: list[Label]


_predict = msgspec.json.Decoder(PredictBody).decode
_labels = msgspec.json.Decoder(LabelsBody).decode


def decode_predict(body: bytes) -> PredictBody:
    """The body of POST /predict. Raises InvalidInput that names the field at fault."""
    decoded = _decode(_predict, body, 'Send JSON such as {"entities": {...}, "features": {...}}')
    if decoded.instances is not None and (
        decoded.features or decoded.entities or decoded.prediction_id or decoded.event_time
    ):
        raise InvalidInput('"instances" stands beside fields of a single row', remedy="Put the row into instances.")
    return decoded


def decode_labels(body: bytes) -> list[LabelRecord]:
    """The records of POST /labels. Raises InvalidInput that names the label at fault."""
    remedy = 'Send {"labels": [{"prediction_id": "...", "event_time": "...", "label": 1}]}'
    labels = _decode(_labels, body, remedy).labels
    now = round(time.time() * 1000)
    return [_label_record(index, label, now) for index, label in enumerate(labels)]


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises TooLarge above 16 MiB, by its announced length before it is read."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > LARGEST_BODY_BYTES:
        raise _too_large()
    message = await receive()
    if not message.get("more_body", False):
        return message.get("body", b"")  # type: ignore[no-any-return]
    body = bytearray(message.get("body", b""))
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> TooLarge:
    return TooLarge("the request body is larger than 16 MiB", remedy="Send fewer instances a request.")


def _decode(decode: Callable[[bytes], Decoded], body: bytes, remedy: str) -> Decoded:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        # msgspec names the place of a mapping's entry only as [...]: look for the name, now that it matters.
        finding = ill_typed(msgspec.json.decode(body)) if "[...]" in str(error) else ""
        message = f"the request body cannot be read: {finding or error}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the request body cannot be read: {error}"
    raise InvalidInput(message, remedy=f"{remedy}; /model/info names the fields.")


def _label_record(index: int, label: Label, now: int) -> LabelRecord:
    try:
        observed_at = parse_instant(label.observed_at) if label.observed_at else now
        return LabelRecord(label.prediction_id, parse_instant(label.event_time), observed_at, label.label)
    except InvalidInput as error:
        raise InvalidInput(f"labels[{index}]: {error.message}", remedy=error.remedy) from None
