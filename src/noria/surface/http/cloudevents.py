"""CloudEvents 1.0 over HTTP: a request that comes as an event is answered by one, in the same mode."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from noria.errors import InvalidInput
from noria.ids import new_id
from noria.surface.http.gateway_requests import Request

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_JSON = "application/json"
_PREFIX = b"ce-"
_ANSWER_TYPE = "org.noria.prediction"
_REFUSAL_TYPE = "org.noria.error"
Headers = list[tuple[bytes, bytes]]


def is_event(request: Request) -> bool:
    """Whether the request is a CloudEvent, in structured or in binary mode, or several of them."""
    if b"ce-specversion" in request.headers:
        return True
    return b"event" in request.headers.get(b"content-type", b"").lower() and request.media_type in (STRUCTURED, BATCH)


def open_event(request: Request) -> Mapping[str, str]:
    """Give the request the event's data for a body; the event's attributes. Raises InvalidInput for what is no event.

    In structured mode the request has the data's content type then.
    """
    if request.media_type == STRUCTURED:
        request.body, attributes = opened(request.body)
        kind = attributes.get("datacontenttype", _JSON).encode("latin-1", "replace")
        request.headers = {**request.headers, b"content-type": kind}
        return attributes
    attributes = {
        name.removeprefix(_PREFIX).decode("latin-1"): value.decode("latin-1")
        for name, value in request.headers.items()
        if name.startswith(_PREFIX)
    }
    _check(attributes)
    return attributes


def of_batch(request: Request) -> Sequence[Request]:
    """The events of a batch as requests of their own, in structured mode. Raises InvalidInput for what is no batch."""
    try:
        events = msgspec.json.decode(request.body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the batch cannot be read: {error}", remedy="Send a JSON array of CloudEvents.") from None
    headers = {**request.headers, b"content-type": STRUCTURED.encode()}
    return [replace(request, headers=headers, body=bytes(event)) for event in events]


def batch_answer(answers: Sequence[bytes]) -> bytes:
    """The batch of structured events that answers a batch, in the order of its events."""
    return b"[%b]" % b",".join(answers)


def structured_refusal(body: bytes, kind: bytes, event: bytes, source: str) -> bytes:
    """The event that says why ``event`` of a batch has no answer: ``body`` does."""
    try:
        asked = {"id": str(msgspec.json.decode(event, type=dict[str, Any]).get("id", ""))}
    except (msgspec.DecodeError, UnicodeDecodeError):
        asked = {"id": ""}
    attributes = {**_answering(asked, source), "type": _REFUSAL_TYPE, "datacontenttype": kind.decode()}
    if not asked["id"]:
        del attributes["correlationid"]  # an attribute is never empty
    return msgspec.json.encode({**attributes, "data": msgspec.Raw(body)})


def structured_answer(body: bytes, kind: bytes, asked: Mapping[str, str], source: str) -> bytes:
    """The event that answers the one asked, with ``body`` in it: as JSON, where ``kind`` says that it is."""
    data = {"data": msgspec.Raw(body)} if kind == _JSON.encode() else {"data_base64": b64encode(body).decode()}
    return msgspec.json.encode({**_answering(asked, source), "datacontenttype": kind.decode(), **data})


def answer_headers(asked: Mapping[str, str], source: str) -> Headers:
    """The attributes of the event that answers the one asked, as headers beside its data."""
    attributes = _answering(asked, source).items()
    return [(_PREFIX + name.encode(), value.encode("latin-1", "replace")) for name, value in attributes]


def _answering(asked: Mapping[str, str], source: str) -> dict[str, str]:
    """The attributes of an answer: its ``correlationid`` is the id of the event asked."""
    return {
        "specversion": "1.0",
        "id": new_id(),
        "source": source,
        "type": _ANSWER_TYPE,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "correlationid": asked["id"],
    }


def opened(body: bytes) -> tuple[bytes, Mapping[str, str]]:
    """The data of a structured event, and its attributes. Raises InvalidInput for what is no event."""
    try:
        event: Any = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        data, encoded = event.pop("data", None), event.pop("data_base64", None)
        attributes = {name: str(msgspec.json.decode(raw)) for name, raw in event.items()}
        _check(attributes)
        if encoded is not None:
            return msgspec.json.decode(encoded, type=bytes), attributes
        if data is not None and not attributes.get("datacontenttype", _JSON).partition(";")[0].endswith("json"):
            return msgspec.json.decode(data, type=str).encode(), attributes
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the event cannot be read: {error}", remedy="Send a CloudEvent as JSON.") from None
    if data is None:
        raise InvalidInput("the event has no data", remedy='Send the request as JSON in "data".')
    return bytes(data), attributes


def _check(attributes: Mapping[str, str]) -> None:
    missing = [name for name in ("specversion", "id", "source", "type") if not attributes.get(name)]
    if missing:
        raise InvalidInput(f"the event lacks {', '.join(missing)}", remedy="CloudEvents 1.0 requires them.")
    if attributes["specversion"] != "1.0":
        raise InvalidInput(f"the event is of version {attributes['specversion']}", remedy="Send CloudEvents 1.0.")
