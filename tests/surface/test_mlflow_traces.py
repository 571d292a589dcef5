"""MLflow's tracing and prompts by its stock client, seen the same on Noria and on MLflow; bad spans are refused."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import httpx
import pytest

from conformance.servers import mlflow_server

_SCRIPT = Path(__file__).parent / "mlflow_traces_script.py"
_API = "/api/3.0/mlflow"
_SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "asked",
    "startTimeUnixNano": "1750000000000000000",
    "endTimeUnixNano": "1750000001500000000",
    "attributes": [
        {"key": "mlflow.spanInputs", "value": {"stringValue": "what"}},
        {"key": "count", "value": {"intValue": "3"}},
    ],
    "status": {"code": 2, "message": "broken"},
}


def observed(python, url):
    done = subprocess.run([python, _SCRIPT, url], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def expected(mlflow_python, tmp_path_factory):
    """What the script sees of MLflow's own server."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as client:
        return observed(mlflow_python, str(client.base_url).rstrip("/"))


@pytest.mark.peer
@pytest.mark.parametrize("engine", ["server", "production_server"])
def test_traces_and_prompts_are_what_mlflow_would_show(engine, expected, mlflow_python, request):
    found = observed(mlflow_python, request.getfixturevalue(engine))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == value, key


def export(url, request, **headers):
    return httpx.post(
        f"{url}/v1/traces",
        content=request if isinstance(request, bytes) else json.dumps(request),
        headers={"content-type": "application/json", "x-mlflow-experiment-id": "0", **headers},
    )


def of_span(**changed):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [{**_SPAN, **changed}]}]}]}


@pytest.mark.parametrize("engine", ["server", "production_server"])
def test_a_plain_exporter_makes_a_trace(engine, request):
    url = request.getfixturevalue(engine)
    packed = gzip.compress(json.dumps(of_span()).encode())
    assert export(url, packed, **{"content-encoding": "gzip"}).status_code == 200
    assert export(url, of_span()).status_code == 200, "sent again it is the same"
    trace = httpx.get(f"{url}{_API}/traces/get", params={"trace_id": f"tr-{_SPAN['traceId']}"}).json()["trace"]
    info = trace["trace_info"]
    assert (info["state"], info["request_preview"], info["execution_duration"]) == ("ERROR", "what", "1.5s")
    assert info["tags"]["service.name"] == "shop"
    assert [span["name"] for span in trace["spans"]] == ["asked"]


@pytest.mark.parametrize("engine", ["server", "production_server"])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff nonsense", {"content-type": "application/x-protobuf"}, 400),
        (b"", {"content-type": "application/x-protobuf"}, 400),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"{}", {"content-type": "text/plain"}, 400),
        (b"{}", {"content-encoding": "br"}, 400),
        (b"not gzip", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b" " * (33 * 1024 * 1024)), {"content-encoding": "gzip"}, 400),
        (of_span(traceId=""), {}, 400),
        (of_span(traceId="zz"), {}, 400),
        (of_span(spanId="abcd"), {}, 400),
        (of_span(name="nul \0 inside"), {}, 400),
        (of_span(name="half \ud800"), {}, 400),
        (of_span(startTimeUnixNano=str(2**64 - 1)), {}, 400),
        (of_span(attributes=[{"key": "x", "value": {"intValue": "many"}}]), {}, 400),
        (of_span(), {"x-mlflow-experiment-id": ""}, 400),
        (of_span(), {"x-mlflow-experiment-id": "999999"}, 404),
        (of_span(), {"x-mlflow-experiment-id": "nul"}, 400),
        (of_span(), {"x-mlflow-run-id": "0" * 32}, 404),
    ],
)
def test_spans_that_are_none_are_refused(engine, body, headers, status, request):
    answer = export(request.getfixturevalue(engine), body, **headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error_code", "message"}


def trace(**changed):
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {"trace_id": "tr-bad", "trace_location": location, "request_time": "2026-01-31T12:00:00Z", "state": "OK"}
    return {"trace": {"trace_info": {**info, **changed}}}


_SAID = {"assessment_name": "x", "feedback": {"value": 1}, "source": {"source_type": "HUMAN", "source_id": "a"}}


@pytest.mark.parametrize("engine", ["server", "production_server"])
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/traces", trace(trace_id=""), 400),
        ("POST", "/traces", trace(trace_id="x" * 51), 400),
        ("POST", "/traces", trace(state="FINE"), 400),
        ("POST", "/traces", trace(request_time="yesterday"), 400),
        ("POST", "/traces", trace(execution_duration="NaNs"), 400),
        ("POST", "/traces", trace(execution_duration="1e99s"), 400),
        ("POST", "/traces", trace(tags={"a": 1}), 400),
        ("POST", "/traces", trace(tags={"k" * 251: "x"}), 400),
        ("POST", "/traces", trace(request_preview="nul \0"), 400),
        ("POST", "/traces", trace(trace_metadata={"a": "half \ud800"}), 400),
        ("POST", "/traces", trace(trace_location={}), 400),
        ("POST", "/traces", trace(trace_location={"mlflow_experiment": {"experiment_id": "999999"}}), 404),
        ("POST", "/traces", trace(assessments=[1]), 400),
        ("POST", "/traces", {"trace": []}, 400),
        ("GET", "/traces/tr-none", {}, 404),
        ("GET", "/traces/a%00b", {}, 400),
        ("GET", "/traces/get?trace_id=tr-none", {}, 404),
        ("GET", "/traces/batchGet", {}, 400),
        ("PATCH", "/traces/tr-none/tags", {"key": "a", "value": "b"}, 404),
        ("PATCH", "/traces/tr-none", {"status": "OK", "timestamp_ms": 1}, 404),
        ("POST", "/traces/tr-none/assessments", {"assessment": _SAID}, 404),
        ("POST", "/traces/tr-none/assessments", {"assessment": {"assessment_name": "x"}}, 400),
        ("POST", "/traces/tr-none/assessments", {"assessment": {**_SAID, "assessment_name": "\0"}}, 400),
        ("DELETE", "/traces/tr-none/assessments/a-1", {}, 404),
        ("POST", "/traces/search", {}, 400),
        ("POST", "/traces/search", {"locations": [{"mlflow_experiment": {"experiment_id": "0"}}], "filter": "("}, 400),
        ("POST", "/traces/delete-traces", {"experiment_id": "0"}, 400),
        ("POST", "/traces/delete-traces", {"experiment_id": "0", "max_timestamp_millis": 2**70}, 400),
        ("POST", "/traces/link-to-run", {"trace_ids": ["tr-none"], "run_id": "0" * 32}, 404),
    ],
)
def test_bad_requests_about_traces_get_a_clear_error(engine, method, path, body, status, request):
    content = json.dumps(body) if body else None
    answer = httpx.request(method, request.getfixturevalue(engine) + _API + path, content=content)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error_code", "message"}
