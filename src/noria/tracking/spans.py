"""Spans as they come in: kept, and told to the traces they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from noria import audit
from noria.clock import from_millis, to_millis
from noria.ids import ExperimentId
from noria.store.database import Transaction
from noria.store.tables import spans as span_table
from noria.tracking import experiments, traces
from noria.tracking.entities import Experiment, Span, Trace

LOCATION_TAG = "mlflow.trace.spansLocation"
_TAG_PREFIX = "mlflow.traceTag."
_LONGEST_PREVIEW = 1000
_METADATA = {
    "mlflow.trace.session": ("session.id", "gen_ai.conversation.id"),
    "mlflow.trace.user": ("user.id",),
}


def log(tx: Transaction, experiment_id: str, spans: Sequence[Span], *, run_id: str | None = None) -> None:
    """Keep spans, each in its trace; a trace nobody told of yet is made of them. A span told again is replaced.

    With ``run_id`` the traces whose first span is among them are linked to that run. Raises NotFound or Conflict for
    the experiment.
    """
    experiment = experiments.require(tx, experiment_id)
    ordered = sorted(spans, key=lambda span: span.trace_id)
    for trace_id, group in groupby(ordered, key=lambda span: span.trace_id):
        of_trace = list(group)
        _tell(tx, experiment, trace_id, of_trace)
        traces.upsert(tx, span_table, list({span.span_id: _row(span) for span in of_trace}.values()))
    if run_id:
        roots = [span.trace_id for span in spans if span.parent_id is None]
        traces.link(tx, roots, "run", run_id)
    counted = {"traces": (len({span.trace_id for span in spans}), 0), "spans": (len(spans), 0)}
    subject = f"experiment:{experiment_id}"
    audit.note(tx, "trace.write", subject, tally={subject: counted} if spans else None)


def _tell(tx: Transaction, experiment: Experiment, trace_id: str, spans: Sequence[Span]) -> None:
    """Make or change the trace by what its spans say; what its client said of it stands."""
    before = traces.find(tx, trace_id)
    known = before or _new(experiment.experiment_id, trace_id, spans)
    root = next((span for span in spans if span.parent_id is None), None)
    if before is None or traces.FINALIZED not in before.metadata:
        known = _stretched(known, spans)
    if root is not None:
        known = _told_by_root(known, root)
    if known != before:
        traces.save(tx, known)
    location = traces.artifact_location(experiment.artifact_location, trace_id)
    made = {"mlflow.artifactLocation": location} if before is None else {}
    traces.put_tags(tx, trace_id, {**made, LOCATION_TAG: "TRACKING_STORE", **_tags(spans, root)})
    metadata = {key: value for key, value in _metadata(spans).items() if key not in known.metadata}
    traces.put_metadata(tx, trace_id, metadata)


def _new(experiment_id: ExperimentId, trace_id: str, spans: Sequence[Span]) -> Trace:
    began = from_millis(min(span.started_ns for span in spans) // 1_000_000)
    return Trace(trace_id, experiment_id, began, None, traces.IN_PROGRESS, None, None, None, {}, {})


def _stretched(trace: Trace, spans: Sequence[Span]) -> Trace:
    """The trace from the first of its spans to the last."""
    began = min(to_millis(trace.started_at), min(span.started_ns for span in spans) // 1_000_000)
    ended = max(span.ended_ns for span in spans) // 1_000_000
    if trace.duration_ms is not None:
        ended = max(ended, to_millis(trace.started_at) + trace.duration_ms)
    return replace(trace, started_at=from_millis(began), duration_ms=ended - began if ended else trace.duration_ms)


def _told_by_root(trace: Trace, root: Span) -> Trace:
    state = trace.state
    if state in (traces.IN_PROGRESS, "STATE_UNSPECIFIED"):
        state = "ERROR" if root.status == "ERROR" else "OK"
    request, response = (root.attributes.get(f"mlflow.span{side}") for side in ("Inputs", "Outputs"))
    return replace(
        trace,
        state=state,
        request_preview=_preview(request) if trace.request_preview is None else trace.request_preview,
        response_preview=_preview(response) if trace.response_preview is None else trace.response_preview,
    )


def _preview(value: object) -> str | None:
    if value is None:
        return None
    text = _text(value)
    return text if len(text) <= _LONGEST_PREVIEW else text[: _LONGEST_PREVIEW - 3] + "..."


def _tags(spans: Sequence[Span], root: Span | None) -> dict[str, str]:
    """What the sender says of itself, then what the first span says the tags are."""
    resource: Mapping[str, object] = next((span.resource for span in spans if span.resource), {})
    tags = {key: _text(value) for key, value in resource.items() if not key.startswith(("telemetry.sdk.", "mlflow."))}
    told = {} if root is None else root.attributes
    tags |= {key.removeprefix(_TAG_PREFIX): _text(told[key]) for key in told if key.startswith(_TAG_PREFIX)}
    return {key: value for key, value in tags.items() if 1 <= len(key) <= 250}


def _metadata(spans: Sequence[Span]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, names in _METADATA.items():
        values = (span.attributes.get(name) for span in spans for name in names)
        if (value := next((value for value in values if value), None)) is not None:
            found[key] = _text(value)
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(span: Span) -> dict[str, object]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "type": str(span.attributes.get("mlflow.spanType", "UNKNOWN")),
        "status": span.status,
        "started_ns": span.started_ns,
        "ended_ns": span.ended_ns,
        "document": span.document,
    }
