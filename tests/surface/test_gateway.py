"""A live gateway: answers, refusals, swaps."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from noria.surface.cli.processes import Child
from support import noria, process_of, resident_megabytes

GOOD = {"entities": {"shop": "north"}, "features": {"hour": 12, "weekday": 5}, "event_time": "2026-02-27T12:00:00Z"}


@pytest.fixture(scope="module")
def gateway(trained):
    child = Child("serve", trained, 0)
    with httpx.Client(base_url=child.url) as client:
        yield client
    child.stop()


def test_a_prediction_says_which_version_made_it(gateway):
    answer = gateway.post("/predict", json=GOOD | {"prediction_id": "mine"}).json()
    assert (answer["prediction_id"], answer["model_version"], answer["variant"]) == ("mine", "1", "champion")
    assert 10 < answer["prediction"] < 40


def test_instances_are_answered_in_order(gateway):
    rows = [GOOD | {"prediction_id": str(number)} for number in range(5)]
    answers = gateway.post("/predict", json={"instances": rows}).json()["predictions"]
    assert [answer["prediction_id"] for answer in answers] == list("01234")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, "cannot be read"),
        ("[]", 400, "cannot be read"),
        (json.dumps(GOOD | {"features": {"hour": 12}}), 400, "'weekday' is missing"),
        (json.dumps(GOOD | {"features": {"hour": 1, "weekday": 1, "moon": 1}}), 400, "unknown features: moon"),
        (
            json.dumps(GOOD | {"features": {"hour": "noon", "weekday": 5}}),
            400,
            "features['hour'] is \"noon\", not a number",
        ),
        (json.dumps(GOOD | {"entities": {}}), 400, "'shop' is missing"),
        (json.dumps(GOOD | {"entities": {"shop": "moon"}}), 404, "no features of view 'last_day'"),
        (json.dumps(GOOD | {"event_time": "yesterday"}), 400, "is not an instant"),
        (json.dumps(GOOD | {"extra": 1}), 400, "cannot be read"),
    ],
)
def test_bad_input_is_a_problem_document_that_says_what_to_do(gateway, body, status, words):
    answer = gateway.post("/predict", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert words in document["detail"]
    assert document["remedy"]


def test_paths_and_methods_that_are_none_are_told(gateway):
    assert gateway.get("/predict").status_code == 405
    assert gateway.get("/nothing").status_code == 404
    assert gateway.post("/predict", content=b"x" * (17 << 20)).status_code == 413


def test_health_info_and_metrics_describe_the_deployment(gateway):
    assert gateway.get("/health").json()["status"] == "healthy"
    info = gateway.get("/model/info").json()
    assert (info["model"], info["task"], info["entity_keys"]) == ("hourly-demand", "regression", ["shop"])
    assert "model_predictions_total" in gateway.get("/metrics").text


def test_the_open_inference_protocol_answers(gateway):
    assert gateway.get("/v2/health/ready").json() == {"ready": True}
    metadata = gateway.get("/v2/models/hourly-demand").json()
    assert metadata["inputs"][0]["shape"] == [-1, 3]
    tensor = {"name": "input", "shape": [2, 3], "datatype": "FP64", "data": [12, 5, 25.0, 3, 2, 20.0]}
    answer = gateway.post("/v2/models/hourly-demand/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["shape"] == [2]
    wrong = gateway.post("/v2/models/hourly-demand/infer", json={"inputs": [tensor | {"shape": [3, 2]}]})
    assert wrong.status_code == 400
    assert "expected [rows, 3]" in wrong.json()["error"]
    assert gateway.get("/v2/models/other").status_code == 404


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "UINT64", "FP32", "BOOL"])
def test_features_beside_those_looked_up_come_in_any_datatype_of_numbers(gateway, datatype):
    value, times = (True, 1) if datatype == "BOOL" else (5, 5)
    path, at = "/v2/models/demand/infer", {"event_time": GOOD["event_time"]}
    hour = {"name": "hour", "shape": [1], "datatype": "INT32", "data": [12]}
    shop = {"name": "shop", "shape": [1], "datatype": "BYTES", "data": ["north"]}
    weekday = {"name": "weekday", "shape": [1], "datatype": datatype, "data": [value]}
    found = gateway.post(path, json={"inputs": [hour, shop, weekday], "parameters": at}).json()
    expected = gateway.post("/predict", json=GOOD | {"features": {"hour": 12, "weekday": times}}).json()
    assert found["outputs"][0]["data"] == [expected["prediction"]]
    raw = np.array([times], dtype=np.int16).tobytes()
    weekday |= {"datatype": "INT16", "parameters": {"binary_data_size": len(raw)}, "data": None}
    header = json.dumps({"inputs": [hour, shop, weekday], "parameters": at}).encode()
    headers = {"inference-header-content-length": str(len(header))}
    assert gateway.post(path, content=header + raw, headers=headers).json()["outputs"] == found["outputs"]


def test_scoring_keeps_to_the_time_a_client_has(gateway):
    body = {"dataframe_records": [{"hour": 12, "weekday": 5, "shop": "north"}]}
    assert gateway.post("/invocations", json=body, headers={"timeout": "5"}).status_code == 200
    assert gateway.post("/invocations", json=body, headers={"timeout": "1us"}).status_code == 504


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/csv", "\n"),
        ("text/csv", "\r\n\r\n"),
        ("text/csv", "hour,weekday,hour,shop\n1,1,2,north\n"),
        ("text/csv", "hour,weekday,shop\n1_0,1,north\n"),
        ("text/csv", "hour,weekday,shop\n-inf,1,north\n"),
        ("application/json", '{"dataframe_split": {"columns": ["hour", "hour", "weekday", "shop"], "data": []}}'),
        ("application/json", '{"dataframe_split": {"columns": 5, "data": []}}'),
        ("application/json", '{"dataframe_split": {"columns": null, "data": []}}'),
        (
            "application/json",
            '{"dataframe_records": [{"hour": 1%s, "weekday": 1, "shop": "north"}]}' % ("0" * 400),
        ),
    ],
)
def test_rows_that_are_none_are_refused(gateway, kind, body):
    answer = gateway.post("/invocations", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text


def test_the_gateway_stays_light_under_load(gateway, trained):
    for _ in range(20):
        gateway.post("/predict", json={"instances": [GOOD] * 200}).raise_for_status()
    assert resident_megabytes(process_of("serve", trained)) < 150


def test_a_port_in_use_is_told(trained, gateway):
    port = str(gateway.base_url.port)
    done = noria("serve", "--port", port, cwd=trained, check=False)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupted_model_file_is_told_and_nothing_is_served_from_it(project):
    graph = next(Path(project, ".noria/artifacts").rglob("model.onnx"))
    graph.write_bytes(graph.read_bytes()[:-10] + b"0123456789")
    child = Child("serve", project, 0)
    answer = httpx.get(f"{child.url}/health")
    child.stop()
    assert answer.status_code == 503
    assert "not those registered" in answer.json()["detail"]


def test_a_new_version_is_swapped_in_without_a_failed_request(project):
    child = Child("serve", project, 0)
    answers, done = [], threading.Event()

    def load():
        with httpx.Client(base_url=child.url) as client:
            while not done.is_set():
                answer = client.post("/predict", json=GOOD)
                answers.append((answer.status_code, answer.json().get("model_version")))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    noria("run", cwd=project)
    child.wait_for_revision(2)
    seen = len(answers)
    deadline = time.monotonic() + 30
    while len(answers) < seen + 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    child.stop()
    assert set(answers) == {(200, "1"), (200, "2")}
