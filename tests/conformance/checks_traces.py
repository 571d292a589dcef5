"""Traces and what is said of them."""

from __future__ import annotations

from conformance.api import Api, check, refusals


def _traces(api: Api, count: int = 1) -> tuple[str, list[str]]:
    """An experiment and the ids of new traces in it, begun one second apart."""
    experiment = api.experiment()
    ids = []
    for number in range(count):
        made = api.post(
            "traces",
            experiment_id=experiment,
            timestamp_ms=1_000 * number + 1,
            tags=[{"key": "number", "value": str(number)}],
            request_metadata=[{"key": "asked", "value": "yes"}],
        )
        ids.append(made["trace_info"]["request_id"])
        api.patch(f"traces/{ids[-1]}", request_id=ids[-1], timestamp_ms=1_000 * number + 251, status="OK")
    return experiment, ids


def _numbers(answer: object) -> object:
    return [tag["value"] for trace in answer.get("traces", []) for tag in trace["tags"] if tag["key"] == "number"]


@check("POST /traces", "PATCH /traces/{trace_id}", "GET /traces/{trace_id}/info")
def check_trace_begun_and_ended(api: Api) -> object:
    _, (trace_id,) = _traces(api)
    info = api.get(f"traces/{trace_id}/info")["trace_info"]
    return [info[name] for name in ("timestamp_ms", "execution_time_ms", "status", "request_metadata")]


@check("GET /traces")
def check_traces_searched(api: Api) -> object:
    experiment, _ = _traces(api, 3)
    filters = ("", "tags.number = '1'", "timestamp_ms > 1000", "status = 'ERROR'", "execution_time_ms = 250")
    return [
        [text, _numbers(api.get("traces", experiment_ids=experiment, filter=text, order_by="timestamp_ms ASC"))]
        for text in filters
    ]


@check("PATCH /traces/{trace_id}/tags", "DELETE /traces/{trace_id}/tags")
def check_trace_tags(api: Api) -> object:
    _, (trace_id,) = _traces(api)
    done = [api.patch(f"traces/{trace_id}/tags", key="team", value=value) for value in ("one", "two")]
    tags = {tag["key"]: tag["value"] for tag in api.get(f"traces/{trace_id}/info")["trace_info"]["tags"]}
    gone = [api.delete(f"traces/{trace_id}/tags", key="team") for _ in range(2)]
    return [done, tags.get("team"), gone]


@check("POST /traces/delete-traces")
def check_traces_deleted(api: Api) -> object:
    experiment, ids = _traces(api, 3)
    return [
        api.post("traces/delete-traces", experiment_id=experiment, request_ids=ids[:1]),
        api.post("traces/delete-traces", experiment_id=experiment, max_timestamp_millis=1_001, max_traces=5),
        _numbers(api.get("traces", experiment_ids=experiment)),
    ]


refusals(
    "traces",
    {
        "trace_that_is_unknown": ("GET /traces/tr-none/info", {}),
        "trace_in_an_unknown_experiment": ("POST /traces", {"experiment_id": "999999", "timestamp_ms": 1}),
        "traces_deleted_by_nothing": ("POST /traces/delete-traces", {"experiment_id": "<experiment>"}),
        "traces_linked_to_nothing": ("POST /traces/link-to-run", {"run_id": "<run>"}),
        "traces_searched_by_nonsense": ("GET /traces", {"experiment_ids": "0", "filter": "colour = 'red'"}),
    },
)
