"""Whatever is sent: no 500, no change past the policy, no change past the audit trail."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.surface.http import mlflow_logged_models, mlflow_logging, mlflow_registry, mlflow_tracking
from support import noria

HANDLERS = {**mlflow_tracking.HANDLERS, **mlflow_logged_models.HANDLERS, **mlflow_registry.HANDLERS}
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
)  # fmt: skip
EVIL = st.sampled_from(
    [
        "", "governed-x", "open", "Production", "Staging", "0", "1", "-1", "9" * 30, "\x00", "' OR 1=1 --", "../..",
        "a" * 300, "ü\u202e🙂", "%00", "1; DROP TABLE runs", "\ud7ff", "NaN", "mlflow-artifacts:/x", "models:/open/1",
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
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, known=st.sampled_from(["governed-x", "open", None]))
def test_no_body_breaks_an_endpoint(mlflow, method, path, body, known):
    if known is not None:
        body = {**body, "name": known, "version": "1"}
    answer = send(mlflow, method, path.replace("{model_id}", "m-1").replace("{key}", "k"), body)
    assert answer.status_code < 500 or answer.status_code == 501, (body, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()) == {"error_code", "message"}


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{}" * 2])
def test_no_bytes_break_an_endpoint(mlflow, method, path, content):
    answer = mlflow.request(method, path.replace("{model_id}", "m-1").replace("{key}", "k"), content=content)
    assert answer.status_code < 500, answer.text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filter_text=st.one_of(EVIL, st.text(max_size=60)), order=st.one_of(EVIL, st.text(max_size=20)))
def test_no_filter_breaks_a_search(mlflow, filter_text, order):
    for path in ("/runs/search", "/experiments/search", "/logged-models/search"):
        answer = send(mlflow, "POST", path, {"filter": filter_text, "order_by": [order], "experiment_ids": ["0"]})
        assert answer.status_code < 500, answer.text
    for path in ("/registered-models/search", "/model-versions/search"):
        text = filter_text.encode("utf-8", "replace").decode()
        answer = mlflow.get(path, params={"filter": text, "order_by": order.encode("utf-8", "replace").decode()})
        assert answer.status_code < 500, answer.text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def keeps_to_it(case):
            case.call_and_validate(checks=checks)

        keeps_to_it()


def send(client: httpx.Client, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
    """JSON as Python writes it, NaN and lone surrogates included."""
    return client.request(method, path, content=json.dumps(body).encode())


def quote(path: str) -> str:
    """Every byte escaped, so that the server sees what is meant."""
    return "".join(f"%{byte:02x}" for byte in path.encode("utf-8", "surrogatepass"))
