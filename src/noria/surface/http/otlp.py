"""Spans as OpenTelemetry exporters and MLflow's client send them: OTLP over HTTP, as protobuf or JSON."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noria.errors import InvalidInput
from noria.store.database import to_json
from noria.surface.http.mlflow_call import check_texts
from noria.tracking.entities import Span

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_IDS = ("traceId", "spanId", "parentSpanId")
_STATUSES = {"STATUS_CODE_OK": "OK", "STATUS_CODE_ERROR": "ERROR"}
_LARGEST_INTEGER = 2**63 - 1
_DEEPEST = 100
_AUTO_WINDOW = zlib.MAX_WBITS | 32  # gzip or zlib, whichever the stream says it is
_REQUEST_ID = "mlflow.traceRequestId"


def decode(body: bytes, media_type: str, encoding: str, largest: int) -> list[Span]:
    """The spans of an export request. Raises InvalidInput for what is none, or larger than ``largest`` unpacked."""
    kind = media_type.partition(";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        raise InvalidInput(f"Invalid Content-Type: {media_type[:100]}", remedy=f"Send {PROTOBUF} or {JSON}.")
    plain = _unpacked(body, encoding.strip().lower(), largest)
    found = [
        _span(span, _attributes(resource.get("resource", {})))
        for resource in _message(plain, kind).get("resource_spans", [])
        for scope in resource.get("scope_spans", [])
        for span in scope.get("spans", [])
    ]
    if not found:
        raise InvalidInput("Invalid OpenTelemetry format - no spans found", remedy="Send resource spans.")
    return found


def _unpacked(body: bytes, encoding: str, largest: int) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise InvalidInput(f"Unsupported Content-Encoding: {encoding[:60]}", remedy="Send gzip, deflate or nothing.")
    for window in (_AUTO_WINDOW, -zlib.MAX_WBITS):  # some clients leave the header of deflate out
        unpacking = zlib.decompressobj(window)
        try:
            plain = unpacking.decompress(body, largest + 1)
        except zlib.error:
            continue
        if len(plain) > largest:
            raise InvalidInput("the unpacked body is too large", remedy="Send fewer spans a request.")
        if unpacking.eof:
            return plain
    raise InvalidInput(f"Failed to decompress {encoding} payload", remedy="Send the whole of it.")


def _message(body: bytes, kind: str) -> Mapping[str, Any]:
    """The export request in protobuf's JSON, its fields named as in the protocol."""
    from google.protobuf.json_format import Error, MessageToDict, ParseDict
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    try:
        if kind == JSON:
            ParseDict(_with_base64_ids(json.loads(body)), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
        found: Mapping[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    except (DecodeError, Error, ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInput("Invalid OpenTelemetry format", remedy="Send an ExportTraceServiceRequest.") from None
    check_texts(found)
    return found


def _with_base64_ids(request: Any) -> Any:
    """OTLP's JSON writes ids as hex where protobuf's JSON has base64."""
    for span in _json_spans(request):
        for holder in (span, *span.get("links", [])):
            for name in _IDS:
                if holder.get(name):
                    holder[name] = base64.b64encode(bytes.fromhex(holder[name])).decode()
    return request


def _json_spans(request: Any) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            yield from scope.get("spans", [])


def _span(wire: dict[str, Any], resource: Mapping[str, object]) -> Span:
    trace_id, span_id = _hex(wire, "trace_id", 16), _hex(wire, "span_id", 8)
    if not trace_id or not span_id:
        raise InvalidInput("a span has no trace id or no id of its own", remedy="Send both.")
    request_id = f"tr-{trace_id}"
    attributes = {**_attributes(wire), _REQUEST_ID: request_id}
    others = [item for item in wire.get("attributes", []) if item.get("key") != _REQUEST_ID]
    wire["attributes"] = [*others, {"key": _REQUEST_ID, "value": {"string_value": request_id}}]
    return Span(
        trace_id=request_id,
        span_id=span_id,
        parent_id=_hex(wire, "parent_span_id", 8) or None,
        name=wire.get("name", ""),
        status=_STATUSES.get(wire.get("status", {}).get("code", ""), "UNSET"),
        started_ns=_nanoseconds(wire, "start_time_unix_nano"),
        ended_ns=_nanoseconds(wire, "end_time_unix_nano"),
        attributes=attributes,
        resource=resource,
        document=to_json(wire),
    )


def _hex(wire: Mapping[str, Any], name: str, size: int) -> str:
    try:
        found = base64.b64decode(wire.get(name, ""))
    except binascii.Error:
        found = b"?"
    if found and len(found) != size:
        raise InvalidInput(f"{name} of a span has {len(found)} bytes, not {size}", remedy="Send OpenTelemetry's ids.")
    return found.hex()


def _nanoseconds(wire: Mapping[str, Any], name: str) -> int:
    value = int(wire.get(name, 0))
    if value > _LARGEST_INTEGER:
        raise InvalidInput(f"{name} of a span is {value}, no time", remedy="Send nanoseconds since 1970.")
    return value


def _attributes(holder: Mapping[str, Any]) -> dict[str, object]:
    return {item.get("key", ""): _value(item.get("value", {})) for item in holder.get("attributes", [])}


def _value(wire: Mapping[str, Any], depth: int = 0) -> object:
    """What an AnyValue holds."""
    if depth > _DEEPEST:
        raise InvalidInput("an attribute of a span is nested too deep", remedy="Send it as a text.")
    for kind, value in wire.items():
        if kind == "array_value":
            items: Sequence[Mapping[str, Any]] = value.get("values", [])
            return [_value(item, depth + 1) for item in items]
        if kind == "kvlist_value":
            return {item.get("key", ""): _value(item.get("value", {}), depth + 1) for item in value.get("values", [])}
        return int(value) if kind == "int_value" else value
    return None
