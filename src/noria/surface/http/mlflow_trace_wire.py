"""Traces and assessments in the JSON of MLflow's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from noria.clock import as_utc, iso
from noria.errors import InvalidInput
from noria.ids import ExperimentId, new_id
from noria.tracking import assessments
from noria.tracking.entities import Assessment, Trace

_LONGEST_MILLIS = 2**53
Json = Mapping[str, object]


def trace_of(info: Mapping[str, Any], now: datetime) -> Trace:
    """The trace a client tells of. Raises InvalidInput."""
    trace_id = _text(info, "trace_id") or ""
    location = info.get("trace_location")
    experiment = location.get("mlflow_experiment") if isinstance(location, dict) else None
    if not isinstance(experiment, dict):
        raise InvalidInput("a trace is in no experiment", remedy="Send trace_location with mlflow_experiment.")
    said = info.get("assessments") or []
    if not isinstance(said, list) or not all(isinstance(item, dict) for item in said):
        raise InvalidInput("the assessments of a trace are no list of objects", remedy="See MLflow's REST API.")
    return Trace(
        trace_id=trace_id,
        experiment_id=ExperimentId(_text(experiment, "experiment_id") or ""),
        started_at=_instant(info, "request_time", now),
        duration_ms=_duration(info),
        state=_text(info, "state") or "STATE_UNSPECIFIED",
        client_request_id=_text(info, "client_request_id"),
        request_preview=_text(info, "request_preview"),
        response_preview=_text(info, "response_preview"),
        tags=_texts(info, "tags"),
        metadata=_texts(info, "trace_metadata"),
        assessments=[assessment_of(item, trace_id, now) for item in said],
    )


def trace_wire(trace: Trace) -> Json:
    """The trace as clients read it."""
    return _known(
        {
            "trace_id": trace.trace_id,
            "client_request_id": trace.client_request_id,
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": trace.experiment_id},
            },
            "request_preview": trace.request_preview,
            "response_preview": trace.response_preview,
            "request_time": iso(trace.started_at),
            "execution_duration": None if trace.duration_ms is None else f"{Decimal(trace.duration_ms) / 1000:f}s",
            "state": trace.state,
            "trace_metadata": trace.metadata,
            "assessments": [assessment_wire(item) for item in trace.assessments],
            "tags": trace.tags,
        }
    )


def assessment_of(wire: Mapping[str, Any], trace_id: str, now: datetime) -> Assessment:
    """The assessment a client tells of. Raises InvalidInput when it says nothing."""
    kind = next((kind for kind in assessments.KINDS if isinstance(wire.get(kind), dict)), None)
    if kind is None:
        raise InvalidInput("Assessment must have either feedback, expectation, or issue value", remedy="Send one.")
    source = wire.get("source")
    if not isinstance(source, dict):
        raise InvalidInput("an assessment has no source", remedy="Send source_type and source_id.")
    return Assessment(
        assessment_id=_text(wire, "assessment_id") or f"a-{new_id()}",
        trace_id=trace_id,
        name=_text(wire, "assessment_name") or "",
        kind=kind,
        content=wire[kind],
        source=source,
        span_id=_text(wire, "span_id"),
        rationale=_text(wire, "rationale"),
        metadata=_texts(wire, "metadata"),
        overrides=_text(wire, "overrides"),
        valid=wire.get("valid") is not False,
        created_at=_instant(wire, "create_time", now),
        updated_at=_instant(wire, "last_update_time", now),
    )


def assessment_wire(assessment: Assessment) -> Json:
    """The assessment as clients read it."""
    return _known(
        {
            "assessment_id": assessment.assessment_id,
            "assessment_name": assessment.name,
            "trace_id": assessment.trace_id,
            "span_id": assessment.span_id,
            "source": assessment.source,
            "create_time": iso(assessment.created_at),
            "last_update_time": iso(assessment.updated_at),
            assessment.kind: assessment.content,
            "rationale": assessment.rationale,
            "metadata": assessment.metadata,
            "overrides": assessment.overrides,
            "valid": assessment.valid,
        }
    )


def _known(fields: Mapping[str, object]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _text(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name!r} is {type(value).__name__}, not text", remedy=f"Send {name} as text.")
    return value


def _texts(holder: Mapping[str, Any], name: str) -> dict[str, str]:
    value = holder.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidInput(f"{name!r} is not an object of texts", remedy="See MLflow's REST API.")
    return value


def _instant(holder: Mapping[str, Any], name: str, now: datetime) -> datetime:
    """A time in RFC 3339; ``now`` when it is missing."""
    if not (text := _text(holder, name)):
        return now
    try:
        found = as_utc(datetime.fromisoformat(text))
        return max(found, datetime(1, 1, 2, tzinfo=UTC))
    except (ValueError, OverflowError):
        raise InvalidInput(f"{name} is {text[:60]!r}, no time", remedy="Send it as 2026-01-31T12:00:00Z.") from None


def _duration(info: Mapping[str, Any]) -> int | None:
    """Milliseconds of a duration such as ``1.5s``."""
    if not (text := _text(info, "execution_duration")):
        return None
    try:
        millis = int(Decimal(text.removesuffix("s")) * 1000)
    except (InvalidOperation, ValueError, OverflowError):
        millis = _LONGEST_MILLIS
    if not text.endswith("s") or abs(millis) >= _LONGEST_MILLIS:
        raise InvalidInput(f"execution_duration is {text[:60]!r}, no duration", remedy="Send it as 1.5s.")
    return millis
