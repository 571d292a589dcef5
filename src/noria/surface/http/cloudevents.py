"""CloudEvents 1.0 over HTTP: a request that comes as an event is answered by one, in the same mode."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from noria.errors import InvalidInput
from noria.ids import new_id
from noria.surface.http.gateway_requests import Request

STRUCTURED = "application/cloudevents+json"
_PREFIX = b"ce-"
_ANSWER_TYPE = "org.noria.prediction"
Headers = list[tuple[bytes, bytes]]


def is_event(request: Request) -> bool:
    """Whether the request is a CloudEvent, in structured or in binary mode."""
    if b"ce-specversion" in request.headers:
        return True
    return b"event" in request.headers.get(b"content-type", b"").lower() and request.media_type == STRUCTURED


def data_of(request: Request) -> tuple[bytes, Mapping[str, str]]:
    """The event's data, and its attributes. Raises InvalidInput for what is no event."""
    if request.media_type == STRUCTURED:
        return _structured(request.body)
    attributes = {
        name.removeprefix(_PREFIX).decode("latin-1"): value.decode("latin-1")
        for name, value in request.headers.items()
        if name.startswith(_PREFIX)
    }
    _check(attributes)
    return request.body, attributes


def answer(body: bytes, asked: Mapping[str, str], *, structured: bool, source: str) -> tuple[bytes, bytes, Headers]:
    """Body, content type and headers of the event that answers: its ``correlationid`` is the id of the one asked."""
    attributes = {
        "specversion": "1.0",
        "id": new_id(),
        "source": source,
        "type": _ANSWER_TYPE,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "correlationid": asked["id"],
    }
    if structured:
        event = {**attributes, "datacontenttype": "application/json", "data": msgspec.Raw(body)}
        return msgspec.json.encode(event), STRUCTURED.encode(), []
    headers = [(_PREFIX + name.encode(), value.encode("latin-1", "replace")) for name, value in attributes.items()]
    return body, b"application/json", headers


def _structured(body: bytes) -> tuple[bytes, Mapping[str, str]]:
    try:
        event: Any = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        attributes = {
            name: str(msgspec.json.decode(raw)) for name, raw in event.items() if name not in ("data", "data_base64")
        }
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the event cannot be read: {error}", remedy="Send a CloudEvent as JSON.") from None
    _check(attributes)
    if "data" not in event:
        raise InvalidInput("the event has no data", remedy='Send the request as JSON in "data".')
    return bytes(event["data"]), attributes


def _check(attributes: Mapping[str, str]) -> None:
    missing = [name for name in ("specversion", "id", "source", "type") if not attributes.get(name)]
    if missing:
        raise InvalidInput(f"the event lacks {', '.join(missing)}", remedy="CloudEvents 1.0 requires them.")
    if attributes["specversion"] != "1.0":
        raise InvalidInput(f"the event is of version {attributes['specversion']}", remedy="Send CloudEvents 1.0.")
