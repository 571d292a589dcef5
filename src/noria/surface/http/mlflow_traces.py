"""The tracing part of MLflow's protocol: traces, their tags and links, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from noria.clock import to_millis
from noria.errors import InvalidInput, NotFound
from noria.ids import ExperimentId, new_id
from noria.store.database import Transaction
from noria.surface.http.mlflow_call import Call, Handler, as_pairs, next_page
from noria.surface.http.mlflow_trace_wire import assessment_of, assessment_wire, trace_of, trace_wire
from noria.tracking import assessments, runs, traces
from noria.tracking.entities import Trace
from noria.tracking.trace_search import search_traces

_IMMUTABLE_TAGS = ("mlflow.trace.spansLocation", "mlflow.artifactLocation", "mlflow.trace.archiveLocation")
_MOST_ASKED_FOR = 1000
Json = Mapping[str, object]


def _start_trace(call: Call) -> Json:
    """Version 3 sends the whole trace; version 2 begins one and ends it later."""
    if "trace" not in call.arguments:
        return _begin_trace(call)
    told = trace_of(_object(_object(call.arguments, "trace"), "trace_info"), call.clock.now())
    told = replace(told, metadata={**told.metadata, traces.FINALIZED: "true"})
    with call.workspace.database.write() as tx:
        return {"trace": {"trace_info": trace_wire(traces.start(tx, told))}}


def _begin_trace(call: Call) -> Json:
    trace = Trace(
        f"tr-{new_id()}",
        ExperimentId(call.required("experiment_id")),
        call.instant("timestamp_ms"),
        None,
        traces.IN_PROGRESS,
        None,
        None,
        None,
        call.pairs("tags"),
        call.pairs("request_metadata"),
    )
    with call.workspace.database.write() as tx:
        return {"trace_info": _trace_v2(traces.start(tx, trace))}


def _end_trace(call: Call) -> Json:
    trace_id = call.path["trace_id"]
    with call.workspace.database.write() as tx:
        traces.end(tx, trace_id, at=call.instant("timestamp_ms"), state=call.text("status", "STATE_UNSPECIFIED"))
        traces.put_tags(tx, trace_id, call.pairs("tags"))
        traces.put_metadata(tx, trace_id, call.pairs("request_metadata"))
        return {"trace_info": _trace_v2(traces.get(tx, trace_id))}


def _get_trace_info(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"trace": {"trace_info": trace_wire(traces.get(tx, call.path["trace_id"]))}}


def _get_trace_info_v2(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"trace_info": _trace_v2(traces.get(tx, call.path["trace_id"]))}


def _get_trace(call: Call) -> Json:
    trace_id, partial = call.required("trace_id"), str(call.arguments.get("allow_partial")).lower() == "true"
    with call.workspace.database.read() as tx:
        trace, documents = traces.get(tx, trace_id), traces.span_documents(tx, [trace_id]).get(trace_id, [])
    if not partial and len(documents) < max(_spans_told(trace), 1):
        raise NotFound(f"Trace with ID {trace_id} is not fully exported yet, please try again later.")
    return {"trace": _whole(trace, documents)}


def _get_traces(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        found = _asked_for(call, tx)
        documents = traces.span_documents(tx, [trace.trace_id for trace in found])
    return {"traces": [_whole(trace, documents.get(trace.trace_id, [])) for trace in found]}


def _get_trace_infos(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"trace_infos": [trace_wire(trace) for trace in _asked_for(call, tx)]}


def _search_traces(call: Call) -> Json:
    if not (locations := call.objects("locations")):
        raise InvalidInput("Missing value for required parameter 'locations'.", remedy="Send locations.")
    experiments = [_object(location, "mlflow_experiment") for location in locations if "mlflow_experiment" in location]
    found, rest = _page(call, [str(item.get("experiment_id")) for item in experiments])
    return {"traces": [trace_wire(trace) for trace in found], **rest}


def _search_traces_v2(call: Call) -> Json:
    found, rest = _page(call, call.texts("experiment_ids"))
    return {"traces": [_trace_v2(trace) for trace in found], **rest}


def _page(call: Call, experiment_ids: Sequence[str]) -> tuple[list[Trace], dict[str, str]]:
    size, start = call.page_bounds(default_size=100, largest=500)
    with call.workspace.database.read() as tx:
        found = search_traces(
            tx,
            experiment_ids,
            filter_text=call.text("filter", ""),
            order_by=call.texts("order_by"),
            limit=size + 1,
            offset=start,
        )
    return found[:size], next_page(found, size, start)


def _delete_traces(call: Call) -> Json:
    until = call.number("max_timestamp_millis") if "max_timestamp_millis" in call.arguments else None
    most = call.number("max_traces") if "max_traces" in call.arguments else None
    if until is not None and abs(until) >= 2**63:
        raise InvalidInput(f"max_timestamp_millis is {until}, no time", remedy="Send milliseconds.")
    with call.workspace.database.write() as tx:
        deleted = traces.delete(
            tx,
            call.required("experiment_id"),
            trace_ids=call.texts("request_ids"),
            until_millis=until,
            most=most,
        )
    return {"traces_deleted": deleted}


def _set_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        traces.set_tag(tx, call.path["trace_id"], _mutable(call.required("key")), call.text("value", ""))
    return {}


def _delete_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        traces.delete_tag(tx, call.path["trace_id"], _mutable(call.required("key")))
    return {}


def _link_to_run(call: Call) -> Json:
    if not (trace_ids := call.texts("trace_ids")):
        raise InvalidInput("Missing value for required parameter 'trace_ids'.", remedy="Send trace_ids.")
    with call.workspace.database.write() as tx:
        runs.get(tx, call.required("run_id"))
        traces.link(tx, trace_ids, "run", call.text("run_id"))
    return {}


def _link_prompts(call: Call) -> Json:
    if not (prompts := call.objects("prompt_versions")):
        raise InvalidInput("Missing value for required parameter 'prompt_versions'.", remedy="Send prompt_versions.")
    targets = [f"{item.get('name', '')}/{item.get('version', '')}" for item in prompts]
    if any(len(target) > 512 for target in targets):
        raise InvalidInput("the name of a prompt is too long", remedy="Send the name of a registered prompt.")
    with call.workspace.database.write() as tx:
        trace = traces.get(tx, call.required("trace_id"))
        for target in targets:
            traces.link(tx, [trace.trace_id], "prompt", target)
    return {}


def _create_assessment(call: Call) -> Json:
    made = assessment_of(_object(call.arguments, "assessment"), call.path["trace_id"], call.clock.now())
    with call.workspace.database.write() as tx:
        traces.get(tx, made.trace_id)
        return {"assessment": assessment_wire(assessments.create(tx, made))}


def _get_assessment(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        found = assessments.get(tx, call.path["trace_id"], call.path["assessment_id"])
    return {"assessment": assessment_wire(found)}


def _update_assessment(call: Call) -> Json:
    """Only the fields named in the mask change; metadata is added to."""
    told, now = _object(call.arguments, "assessment"), call.clock.now()
    mask = call.text("update_mask").split(",")
    with call.workspace.database.write() as tx:
        before = assessments.get(tx, call.path["trace_id"], call.path["assessment_id"])
        changed = assessment_of({**assessment_wire(before), **_masked(told, mask, before.kind)}, before.trace_id, now)
        metadata = {**before.metadata, **changed.metadata}
        changed = replace(changed, metadata=metadata, created_at=before.created_at, updated_at=now)
        return {"assessment": assessment_wire(assessments.change(tx, changed))}


def _masked(told: Mapping[str, Any], mask: Sequence[str], kind: str) -> dict[str, Any]:
    names = {"assessmentName": "assessment_name"}
    fields = [names.get(field.strip(), field.strip()) for field in mask]
    if others := {"feedback", "expectation"} & set(fields) - {kind}:
        raise InvalidInput(f"this is {kind}, not {' and '.join(others)}", remedy="Create another assessment.")
    allowed = ("assessment_name", "rationale", "metadata", "feedback", "expectation")
    return {field: told[field] for field in fields if field in allowed and field in told}


def _delete_assessment(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        traces.get(tx, call.path["trace_id"])
        assessments.delete(tx, call.path["trace_id"], call.path["assessment_id"])
    return {}


HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("POST", "/traces"): _start_trace,
    ("GET", "/traces"): _search_traces_v2,
    ("POST", "/traces/search"): _search_traces,
    ("GET", "/traces/get"): _get_trace,
    ("GET", "/traces/batchGet"): _get_traces,
    ("POST", "/traces/batchGetInfos"): _get_trace_infos,
    ("POST", "/traces/delete-traces"): _delete_traces,
    ("POST", "/traces/link-to-run"): _link_to_run,
    ("POST", "/traces/link-prompts"): _link_prompts,
    ("GET", "/traces/{trace_id}"): _get_trace_info,
    ("PATCH", "/traces/{trace_id}"): _end_trace,
    ("GET", "/traces/{trace_id}/info"): _get_trace_info_v2,
    ("PATCH", "/traces/{trace_id}/tags"): _set_tag,
    ("DELETE", "/traces/{trace_id}/tags"): _delete_tag,
    ("POST", "/traces/{trace_id}/assessments"): _create_assessment,
    ("GET", "/traces/{trace_id}/assessments/{assessment_id}"): _get_assessment,
    ("PATCH", "/traces/{trace_id}/assessments/{assessment_id}"): _update_assessment,
    ("DELETE", "/traces/{trace_id}/assessments/{assessment_id}"): _delete_assessment,
}


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = holder.get(name)
    if not isinstance(found, dict):
        raise InvalidInput(f"Missing value for required parameter '{name}'.", remedy=f"Send {name} as an object.")
    return found


def _asked_for(call: Call, tx: Transaction) -> list[Trace]:
    if not (trace_ids := call.texts("trace_ids")) or len(trace_ids) > _MOST_ASKED_FOR:
        raise InvalidInput("Invalid value for parameter 'trace_ids'.", remedy=f"Send 1 to {_MOST_ASKED_FOR} ids.")
    return traces.load(tx, trace_ids)


def _mutable(key: str) -> str:
    if key in _IMMUTABLE_TAGS:
        raise InvalidInput(f"Tag '{key}' is immutable.", remedy="Set another tag.")
    return key


def _whole(trace: Trace, documents: Sequence[str]) -> Json:
    return {"trace_info": trace_wire(trace), "spans": [msgspec.Raw(document.encode()) for document in documents]}


def _spans_told(trace: Trace) -> int:
    """How many spans its client says the trace has; 0 when it did not say."""
    try:
        told = json.loads(trace.metadata.get("mlflow.trace.sizeStats", "{}"))
        return int(told.get("num_spans", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _trace_v2(trace: Trace) -> Json:
    return {
        "request_id": trace.trace_id,
        "experiment_id": trace.experiment_id,
        "timestamp_ms": to_millis(trace.started_at),
        **({} if trace.duration_ms is None else {"execution_time_ms": trace.duration_ms}),
        "status": "TRACE_STATUS_UNSPECIFIED" if trace.state == "STATE_UNSPECIFIED" else trace.state,
        "request_metadata": as_pairs(trace.metadata),
        "tags": as_pairs(trace.tags),
    }
