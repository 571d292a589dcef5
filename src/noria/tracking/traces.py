"""Traces: what an application did for one request, step by step. MLflow's tracing keeps them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, select, update
from sqlalchemy import delete as sql_delete

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import InvalidInput, NotFound
from noria.store.database import Transaction, conflict_insert
from noria.store.tables import assessments, spans, trace_links, trace_metadata, trace_tags, traces
from noria.tracking import assessments as assessment_rows
from noria.tracking import experiments
from noria.tracking.entities import Trace

NAME_TAG = "mlflow.traceName"
IN_PROGRESS = "IN_PROGRESS"
STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", IN_PROGRESS)
FINALIZED = "mlflow.trace.infoFinalized"
_LONGEST_ID, _LONGEST_CLIENT_ID, _LONGEST_KEY, _LONGEST_VALUE = 50, 256, 250, 8000
_MOST_LINKS = 100


def start(tx: Transaction, trace: Trace) -> Trace:
    """Keep a trace as its client tells it, over whatever its spans told before.

    Tags, metadata and assessments are added to those there. Raises NotFound or Conflict for its experiment.
    """
    _check(trace)
    experiment = experiments.require(tx, trace.experiment_id)
    before = find(tx, trace.trace_id)
    if before is not None:
        trace = replace(
            trace,
            request_preview=before.request_preview if trace.request_preview is None else trace.request_preview,
            response_preview=before.response_preview if trace.response_preview is None else trace.response_preview,
        )
    tags = {**trace.tags, "mlflow.artifactLocation": artifact_location(experiment.artifact_location, trace.trace_id)}
    upsert(tx, traces, [_row(trace)])
    put_tags(tx, trace.trace_id, tags)
    put_metadata(tx, trace.trace_id, trace.metadata)
    for item in trace.assessments:
        assessment_rows.put(tx, item)
    note(tx, "write", trace.trace_id)
    return get(tx, trace.trace_id)


def note(tx: Transaction, done: str, trace_id: str, detail: Mapping[str, object] | None = None) -> None:
    """Tell the audit trail what was done to a trace."""
    audit.note(tx, f"trace.{done}", f"trace:{trace_id}", detail=detail)


def save(tx: Transaction, trace: Trace) -> None:
    """Keep a trace's own fields; tags and metadata stay as they are."""
    upsert(tx, traces, [_row(trace)])


def artifact_location(experiment_location: str, trace_id: str) -> str:
    """Where a client that keeps spans as a file puts it, and attachments."""
    return f"{experiment_location}/traces/{trace_id}/artifacts"


def find(tx: Transaction, trace_id: str) -> Trace | None:
    """The trace of that id, or None."""
    return next(iter(load(tx, [trace_id])), None)


def get(tx: Transaction, trace_id: str) -> Trace:
    """The trace of that id. Raises NotFound."""
    if (found := find(tx, trace_id)) is None:
        raise NotFound(f"Trace with ID '{trace_id[:100]}' not found.", remedy="Search traces for the ids.")
    return found


def load(tx: Transaction, trace_ids: Sequence[str]) -> list[Trace]:
    """The traces of these ids that there are, in the order of the ids."""
    rows = {row.trace_id: row for row in tx.execute(select(traces).where(traces.c.trace_id.in_(trace_ids)))}
    tags, metadata = _pairs(tx, trace_tags, trace_ids), _pairs(tx, trace_metadata, trace_ids)
    said = assessment_rows.of_traces(tx, trace_ids)
    return [
        _trace(rows[key], tags.get(key, {}), metadata.get(key, {}), said.get(key, []))
        for key in dict.fromkeys(trace_ids)
        if key in rows
    ]


def span_documents(tx: Transaction, trace_ids: Sequence[str]) -> dict[str, list[str]]:
    """The spans of each trace as JSON texts, by the time they began."""
    query = (
        select(spans.c.trace_id, spans.c.document)
        .where(spans.c.trace_id.in_(trace_ids))
        .order_by(spans.c.started_ns, spans.c.span_id)
    )
    found: dict[str, list[str]] = {}
    for trace_id, document in tx.execute(query):
        found.setdefault(trace_id, []).append(document)
    return found


def put_tags(tx: Transaction, trace_id: str, tags: Mapping[str, str]) -> None:
    """Add or replace tags; a value that is too long is cut, as MLflow does. Raises InvalidInput for a key."""
    for key in tags:
        _check_key(key)
    rows = [{"trace_id": trace_id, "key": key, "value": value[:_LONGEST_VALUE]} for key, value in tags.items()]
    upsert(tx, trace_tags, rows)


def put_metadata(tx: Transaction, trace_id: str, metadata: Mapping[str, str]) -> None:
    """Add or replace metadata. Raises InvalidInput for a key."""
    for key in metadata:
        _check_key(key)
    upsert(tx, trace_metadata, [{"trace_id": trace_id, "key": key, "value": metadata[key]} for key in metadata])


def set_tag(tx: Transaction, trace_id: str, key: str, value: str) -> None:
    """Add or replace one tag. Raises NotFound for the trace."""
    get(tx, trace_id)
    put_tags(tx, trace_id, {key: value})
    note(tx, "set_tag", trace_id, {"key": key, "value": value[:_LONGEST_VALUE]})


def delete_tag(tx: Transaction, trace_id: str, key: str) -> None:
    """Take a tag away. Raises NotFound for the trace and for the tag."""
    get(tx, trace_id)
    of_it = (trace_tags.c.trace_id == trace_id, trace_tags.c.key == key)
    if tx.execute(sql_delete(trace_tags).where(*of_it)).rowcount == 0:
        raise NotFound(f"No trace tag with key '{key[:100]}' for trace with ID '{trace_id}'", remedy="It is gone.")
    note(tx, "delete_tag", trace_id, {"key": key})


def delete(
    tx: Transaction,
    experiment_id: str,
    *,
    trace_ids: Sequence[str] = (),
    until_millis: int | None = None,
    most: int | None = None,
) -> int:
    """Delete traces of an experiment, by their ids or the oldest up to an instant; how many there were."""
    if bool(trace_ids) == (until_millis is not None):
        raise InvalidInput(
            "Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.", remedy="Send one of them."
        )
    if most is not None and (trace_ids or most <= 0):
        raise InvalidInput("`max_traces` goes with `max_timestamp_millis` and is positive.", remedy="Leave it out.")
    chosen = select(traces.c.trace_id).where(traces.c.experiment_id == experiment_id)
    if trace_ids:
        chosen = chosen.where(traces.c.trace_id.in_(trace_ids))
    else:
        chosen = chosen.where(traces.c.started_at <= until_millis).order_by(traces.c.started_at, traces.c.trace_id)
    ids = list(tx.execute(chosen if most is None else chosen.limit(most)).scalars())
    for table in (trace_tags, trace_metadata, trace_links, spans, assessments, traces):
        tx.execute(sql_delete(table).where(table.c.trace_id.in_(ids)))
    if ids:
        audit.note(tx, "trace.delete", f"experiment:{experiment_id}", detail={"traces": ids})
    return len(ids)


def link(tx: Transaction, trace_ids: Sequence[str], kind: str, target: str) -> None:
    """Link traces to a run (its id) or a prompt (``name/version``), once each."""
    if len(trace_ids) > _MOST_LINKS:
        raise InvalidInput(f"{len(trace_ids)} traces are linked at once", remedy=f"Link at most {_MOST_LINKS}.")
    rows = [{"trace_id": trace_id, "kind": kind, "target": target} for trace_id in dict.fromkeys(trace_ids)]
    if any(not row["trace_id"] or len(row["trace_id"]) > _LONGEST_ID for row in rows):
        raise InvalidInput("an id of a trace is empty or too long", remedy=f"Use at most {_LONGEST_ID} characters.")
    if rows:
        tx.execute(conflict_insert(tx.dialect.name, trace_links).on_conflict_do_nothing(), rows)
        detail = {"traces": [row["trace_id"] for row in rows]}
        audit.note(tx, "trace.link", f"{kind}:{target}", detail=detail)


def end(tx: Transaction, trace_id: str, *, at: datetime, state: str) -> None:
    """Say when and how a trace that was begun ended. Raises NotFound or InvalidInput."""
    before = get(tx, trace_id)
    duration = to_millis(at) - to_millis(before.started_at)
    _check(replace(before, state=state, duration_ms=duration))
    changed = {"state": state, "duration_ms": duration}
    tx.execute(update(traces).where(traces.c.trace_id == trace_id).values(**changed))
    note(tx, "end", trace_id)


def _check(trace: Trace) -> None:
    if not trace.trace_id or len(trace.trace_id) > _LONGEST_ID:
        raise InvalidInput(f"{trace.trace_id[:60]!r} is no id of a trace", remedy=f"Use 1 to {_LONGEST_ID} characters.")
    if trace.state not in STATES:
        raise InvalidInput(f"{trace.state!r} is no state of a trace", remedy=f"Use one of {', '.join(STATES)}.")
    if len(trace.client_request_id or "") > _LONGEST_CLIENT_ID:
        raise InvalidInput("the client's request id is too long", remedy=f"Use at most {_LONGEST_CLIENT_ID} signs.")


def _check_key(key: str) -> None:
    if not key or len(key) > _LONGEST_KEY:
        raise InvalidInput(
            f"{key[:60]!r} is no key of a tag or of metadata", remedy=f"Use 1 to {_LONGEST_KEY} characters."
        )


def upsert(tx: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of one shape, or replace those of the same key."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    statement = conflict_insert(tx.dialect.name, table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    tx.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))


def _pairs(tx: Transaction, table: Table, trace_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query = select(table).where(table.c.trace_id.in_(trace_ids)).order_by(table.c.key)
    for trace_id, key, value in tx.execute(query):
        found.setdefault(trace_id, {})[key] = value
    return found


def _row(trace: Trace) -> dict[str, Any]:
    return {
        "trace_id": trace.trace_id,
        "experiment_id": trace.experiment_id,
        "started_at": to_millis(trace.started_at),
        "duration_ms": trace.duration_ms,
        "state": trace.state,
        "client_request_id": trace.client_request_id,
        "request_preview": trace.request_preview,
        "response_preview": trace.response_preview,
    }


def _trace(row: Row[Any], tags: Mapping[str, str], metadata: Mapping[str, str], said: Sequence[Any]) -> Trace:
    return Trace(
        row.trace_id,
        row.experiment_id,
        from_millis(row.started_at),
        row.duration_ms,
        row.state,
        row.client_request_id,
        row.request_preview,
        row.response_preview,
        tags,
        metadata,
        said,
    )
