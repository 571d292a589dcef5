"""Whatever is sent: no 500, no change past the policy, no change past the audit trail."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.surface.http import mlflow_logged_models, mlflow_logging, mlflow_registry, mlflow_traces, mlflow_tracking
from support import noria

HANDLERS = {
    **mlflow_tracking.HANDLERS,
    **mlflow_logged_models.HANDLERS,
    **mlflow_registry.HANDLERS,
    **mlflow_traces.HANDLERS,
}
READS = sorted((method, path) for method, path in HANDLERS if method == "GET")
WRITES = sorted(
    {
        *((method, path) for method, path in HANDLERS if method != "GET"),
        *(("POST", path) for path in mlflow_logging.DECODERS),
    }
)
FIELDS = (
    "name", "new_name", "version", "stage", "alias", "key", "value", "description", "source", "run_id", "run_uuid",
    "experiment_id", "experiment_ids", "run_name", "status", "start_time", "end_time", "tags", "params", "metrics",
    "timestamp", "step", "filter", "order_by", "max_results", "page_token", "datasets", "models", "model_id",
    "model_json", "archive_existing_versions", "artifact_location", "user_id", "source_run_id", "reason",
    "trace", "trace_ids", "locations", "assessment", "update_mask", "timestamp_ms", "max_timestamp_millis",
    "request_ids", "prompt_versions", "metric_key", "experiment_name", "path", "stages", "view_type",
)  # fmt: skip
EVIL = st.sampled_from(
    [
        "", "governed-x", "open", "Production", "Staging", "0", "1", "-1", "9" * 30, "\x00", "' OR 1=1 --", "../..",
        "a" * 300, "ü\u202e🙂", "%00", "1; DROP TABLE runs", "\ud7ff", "NaN", "mlflow-artifacts:/x", "models:/open/1",
        "\ud800", "a\udfffb", "\udcff\ud800", str(2**63), str(-(2**64)), "runs:/x/y", "models:/m-x", "s3://b/m",
    ]
)  # fmt: skip
SCALARS = st.one_of(EVIL, st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none(), st.text(max_size=20))
PAIRS = st.lists(st.fixed_dictionaries({}, optional={"key": SCALARS, "value": SCALARS, "step": SCALARS}), max_size=3)
VALUES = st.one_of(SCALARS, PAIRS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=5), SCALARS))
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8)


@pytest.fixture(scope="module")
def mlflow(server):
    """A client of the protocol, on a store with something to spoil."""
    with httpx.Client(base_url=f"{server}/api/2.0/mlflow", timeout=60) as client:
        for name in ("governed-x", "open"):
            client.post("/registered-models/create", json={"name": name})
            client.post("/model-versions/create", json={"name": name, "source": "mlflow-artifacts:/x"})
        yield client


@pytest.mark.parametrize(("method", "path"), WRITES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, known=st.sampled_from(["governed-x", "open", None]))
def test_no_body_breaks_an_endpoint(mlflow, method, path, body, known):
    if known is not None:
        body = {**body, "name": known, "version": body.get("version", "1")}
    answer = send(mlflow, method, filled(path), body)
    assert answer.status_code < 500 or answer.status_code == 501, (body, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()) == {"error_code", "message"}


@pytest.mark.parametrize(("method", "path"), READS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, place=EVIL)
def test_no_question_breaks_an_endpoint(mlflow, method, path, body, place):
    asked = f"{filled(path, quote(place) or 'x')}?{urlencode(body, doseq=True, errors='surrogatepass')}"
    answer = mlflow.request(method, asked)
    assert answer.status_code < 500 or answer.status_code == 501, (asked, answer.text)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/runs/set-tag", {"key": "k", "value": "\ud800"}),
        ("/runs/log-parameter", {"key": "k", "value": "a\udfffb"}),
        ("/runs/log-parameter", {"key": "k", "value": "\x00"}),
        ("/runs/log-batch", {"tags": [{"key": "k", "value": "\ud800"}]}),
        ("/runs/log-batch", {"metrics": [{"key": "\ud800", "value": 1, "timestamp": 1}]}),
        ("/runs/update", {"run_name": "\ud800"}),
        ("/runs/outputs", {"models": [{"model_id": "m-1", "step": 2**70}]}),
        ("/runs/log-inputs", {"models": [{"model_id": "\ud800"}]}),
    ],
)
def test_what_no_database_keeps_is_bad_input_and_harms_nobody_else(mlflow, path, body):
    run = send(mlflow, "POST", "/runs/create", {"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    with ThreadPoolExecutor(8) as pool:
        bad = pool.submit(send, mlflow, "POST", path, {"run_id": run, **body})
        good = [
            pool.submit(send, mlflow, "POST", "/runs/set-tag", {"run_id": run, "key": f"k{i}", "value": "v"})
            for i in range(16)
        ]
    assert (bad.result().status_code, bad.result().json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert {answer.result().status_code for answer in good} == {200}


@pytest.mark.parametrize("version", [2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**200])
def test_no_number_of_a_version_is_too_large_to_be_refused(mlflow, version):
    body = {"name": "open", "version": str(version), "stage": "Staging", "alias": "a", "key": "k", "value": "v"}
    for method, path in (
        ("POST", "/model-versions/transition-stage"),
        ("PATCH", "/model-versions/update"),
        ("DELETE", "/model-versions/delete"),
        ("POST", "/registered-models/alias"),
        ("POST", "/model-versions/set-tag"),
    ):
        assert send(mlflow, method, path, body).status_code in (400, 404), path
    assert mlflow.get("/model-versions/get", params={"name": "open", "version": version}).status_code in (400, 404)


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}" * 2,
        b'{"name":"\xed\xa0\x80"}',
        b'{"run_id":"' + b"[" * 900 + b'"}',
        b'{"tags":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_no_bytes_break_an_endpoint(mlflow, method, path, content):
    answer = mlflow.request(method, filled(path), content=content)
    assert answer.status_code < 500, answer.text


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filter_text=st.one_of(EVIL, st.text(max_size=60)), order=st.one_of(EVIL, st.text(max_size=20)))
def test_no_filter_breaks_a_search(mlflow, filter_text, order):
    for path in ("/runs/search", "/experiments/search", "/logged-models/search"):
        answer = send(mlflow, "POST", path, {"filter": filter_text, "order_by": [order], "experiment_ids": ["0"]})
        assert answer.status_code < 500, answer.text
    for path in ("/registered-models/search", "/model-versions/search"):
        text = filter_text.encode("utf-8", "replace").decode()
        answer = mlflow.get(path, params={"filter": text, "order_by": order.encode("utf-8", "replace").decode()})
        assert answer.status_code < 500, answer.text


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.one_of(EVIL, st.text(max_size=40)), method=st.sampled_from(["GET", "PUT", "DELETE"]))
def test_no_artifact_path_leaves_the_root(server, path, method):
    quoted = httpx.URL(server).copy_with(path="/").join(f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}")
    answer = httpx.request(method, quoted, content=b"x")
    assert answer.status_code < 500, answer.text


def test_a_body_that_is_too_large_is_refused(mlflow):
    answer = mlflow.post("/runs/log-batch", content=b" " * (33 * 1024 * 1024))
    assert answer.status_code == 400, answer.text


def test_after_all_that_nothing_is_past_the_policy_or_the_audit_trail(server, mlflow, governed_project):
    noria("audit", "verify", cwd=governed_project)
    versions = mlflow.get("/model-versions/search", params={"filter": "name LIKE 'governed%'"}).json()
    passed = [v for v in versions.get("model_versions", []) if v["current_stage"] == "Production"]
    assert [v for v in passed if "reviewed" not in {tag["key"] for tag in v["tags"]}] == []


def test_noria_own_api_keeps_to_its_description(server):
    schemathesis.checks.load_all_checks()
    names = "not_a_server_error", "response_schema_conformance", "content_type_conformance"
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in names]
    described = schemathesis.openapi.from_url(f"{server}/api/noria/v1/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) >= 15
    for operation in operations:

        @settings(max_examples=25, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def keeps_to_it(case):
            case.call_and_validate(checks=checks)

        keeps_to_it()


def send(client: httpx.Client, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
    """JSON as Python writes it, NaN and lone surrogates included."""
    return client.request(method, path, content=json.dumps(body).encode())


def filled(path: str, value: str = "m-1") -> str:
    """The path of an endpoint with something in place of every id."""
    return re.sub(r"{\w+}", lambda _: value, path)


def quote(path: str) -> str:
    """Every byte escaped, so that the server sees what is meant."""
    return "".join(f"%{byte:02x}" for byte in path.encode("utf-8", "surrogatepass"))
