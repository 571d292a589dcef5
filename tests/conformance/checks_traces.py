"""Traces and what is said of them."""

from __future__ import annotations

import functools
import hashlib

from conformance.api import Api, add, check, refusals


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


def _spanned(api: Api) -> tuple[str, dict[str, str]]:
    """An experiment with three traces of one or two spans that have attributes, and which trace each id is of."""
    experiment, names = api.experiment(), {}
    for number, (name, spans) in enumerate(_SPANS.items(), start=1):
        trace = hashlib.sha256(f"{api.check} {number}".encode()).hexdigest()[:32]
        names[f"tr-{trace}"] = name
        sent = [
            {
                "traceId": trace,
                "spanId": f"{number:08x}{place:08x}",
                "name": span,
                "attributes": [{"key": key, "value": value} for key, value in attributes.items()],
                **({"parentSpanId": f"{number:08x}{1:08x}"} if place > 1 else {}),
            }
            for place, (span, attributes) in enumerate(spans.items(), start=1)
        ]
        assert api.spans(experiment, *sent).status == 200
    return experiment, names


_SPANS = {
    "cat": {
        "look for the cat": {"model": {"stringValue": "gpt-4o"}, "tokens": {"intValue": "3"}},
        "feed": {"model": {"stringValue": "small"}, "is.cached": {"boolValue": True}},
    },
    "dog": {"walk the dog": {"model": {"stringValue": "claude's"}, "is.cached": {"boolValue": False}}},
    "none": {"LOOK": {}},
}


def _found(api: Api, texts: list[str]) -> object:
    experiment, names = _spanned(api)
    answers = [api.get("traces", experiment_ids=experiment, filter=text) for text in texts]
    return [
        [
            text,
            sorted(names[trace["request_id"]] for trace in answer.get("traces", []))
            if answer.status == 200
            else answer,
        ]
        for text, answer in zip(texts, answers, strict=True)
    ]


_FILTERS = {
    "attributes_like": [
        "span.attributes.model LIKE '%gpt%'",
        "span.attributes.model ILIKE '%CLAUDE%'",
        "span.attributes.`model` LIKE '%gpt%'",
        "span.attributes.model LIKE '%gpt%' AND span.name = 'look for the cat'",
        "span.attributes.model LIKE '%claude%' AND span.name LIKE 'look%'",
        "span.attributes.none LIKE '%gpt%'",
    ],
    "attributes_of_one_span": ["span.attributes.model LIKE '%gpt%' AND span.attributes.is.cached LIKE '%true%'"],
    "attributes_rlike": [
        "span.attributes.model RLIKE '^gpt'",
        "span.attributes.model RLIKE '4o$'",
        "span.attributes.model RLIKE '^small$'",
        "span.attributes.model RLIKE '^pt'",
        "span.attributes.none RLIKE 'a'",
    ],
    "attributes_equal": ["span.attributes.model = 'small'", "span.attributes.model IN ('small', 'x')"],
    "attributes_unequal": ["span.attributes.model != 'small'"],
    "rlike": [
        "span.name RLIKE '^(look|walk)'",
        "span.name RLIKE 'CAT'",
        "span.name RLIKE '(?i)^look'",
        "span.name RLIKE '[a-c]at$' AND span.attributes.model LIKE '%gpt%'",
        "name RLIKE 'dog$'",
        "trace.status RLIKE '^O'",
        "tags.none RLIKE 'a'",
        "metadata.none RLIKE 'a'",
    ],
    "rlike_that_is_none": ["span.name RLIKE '('", "span.name RLIKE 3", "timestamp RLIKE '1'"],
    "attributes_refused": ["span.attributes.model > 'a'", "span.attributes.model = 3", "span.colour = 'red'"],
    "attributes_null": ["span.attributes.model IS NULL"],
}
for _name, _texts in _FILTERS.items():
    add(f"span_filter_{_name}", "traces", ["GET /traces", "POST /v1/traces"], functools.partial(_found, texts=_texts))


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
