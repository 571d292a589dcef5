"""A gateway in a process of its own, under load and misuse, over real ONNX models."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from noria.errors import Unavailable
from noria.monitoring.log import LABELS, LabelRecord, read_predictions, read_records
from noria.optimize.bundle import ONNX_FILE
from noria.surface.http.sockets import bind
from servers import free_port
from serving.gateway_world import REQUEST, World, new_world


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, httpx.Client]]:
    world = new_world(tmp_path_factory.mktemp("gateway"))
    champion, canary = world.add_model(1), world.add_model(2)
    world.deploy(3, replace(champion, percent=80.0), replace(canary, name="canary", percent=20.0))
    with world.gateway() as url, httpx.Client(base_url=url) as client:
        yield world, client


def eventually(check: Callable[[], bool]) -> None:
    """Wait for another process, at most 15 seconds."""
    deadline = time.monotonic() + 15
    while not check():
        assert time.monotonic() < deadline, "it did not happen in 15 seconds"
        time.sleep(0.01)


def test_a_canary_gets_its_share_and_a_key_always_gets_the_same_variant(shared):
    _, client = shared
    rows = [REQUEST | {"prediction_id": f"key-{number}"} for number in range(1000)]
    first, second = (client.post("/predict", json={"instances": rows}).json()["predictions"] for _ in range(2))
    assert [row["variant"] for row in first] == [row["variant"] for row in second]
    assert 150 < Counter(row["variant"] for row in first)["canary"] < 250
    assert {(row["variant"], row["model_version"]) for row in first} == {("champion", "1"), ("canary", "2")}


def test_a_prediction_is_in_the_log_once_its_answer_is_here(shared):
    world, client = shared
    answer = client.post("/predict", json=REQUEST | {"prediction_id": "logged"}).json()
    logged = {record.prediction_id: record for record in read_predictions(world.settings.prediction_log)}["logged"]
    assert (logged.score, logged.revision) == (answer["score"], 3)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "cannot be read"),
        (b'{"features": {"distance": \xff}}', 400, "cannot be read"),
        (b'{"features": {"distance": "far", "hour": 1}}', 400, "features['distance'] is \"far\", not a number"),
        (b'{"entities": {"carrier": 1.5}}', 400, "entities['carrier'] is 1.5, not a string or int"),
        (b'{"entities": {"carrier": 18446744073709551615}}', 400, "9223372036854775807"),
        (b'{"instances": [{"features": {"distance": 1, "hour": []}}]}', 400, "'hour'] is [], not a number"),
        (b'{"instances": [], "entities": {"a": 1}}', 400, "beside"),
        (b'{"entities": {"": null}, "unit_id": Infinity}', 400, "malformed"),
    ],
)
def test_what_cannot_be_read_is_a_problem_that_names_the_field(shared, body, status, words):
    answer = shared[1].post("/predict", content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    assert {"type", "title", "status", "detail", "code", "remedy"} <= set(answer.json())


def test_a_wrong_method_is_told_the_right_one(shared):
    for method, path, allowed in [("GET", "/predict", "POST"), ("POST", "/metrics", "GET")]:
        answer = shared[1].request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert shared[1].get("/v2/models/flights/infer").status_code == 405


def test_a_body_nested_without_end_is_refused(shared):
    nested = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 100_000
    assert shared[1].post("/v2/models/flights/infer", content=nested).status_code == 400


def test_a_body_above_16_mib_is_refused_in_chunks_too(shared):
    answer = shared[1].post("/predict", content=(b" " * (1 << 20) for _ in range(17)))
    assert answer.status_code == 413


def test_labels_are_logged_and_bad_ones_are_named(shared):
    world, client = shared
    label = {"prediction_id": "logged", "event_time": REQUEST["event_time"], "label": 1}
    assert client.post("/labels", json={"labels": [label]}).json() == {"accepted": 1}
    assert [record.label for record in read_records(world.settings.prediction_log, LABELS, LabelRecord)] == [1.0]
    refused = client.post("/labels", json={"labels": [label, label | {"event_time": ""}]})
    assert (refused.status_code, refused.json()["detail"]) == (400, "labels[1]: '' is not an instant")


def test_open_inference_takes_one_matrix_or_a_tensor_a_column_and_logs_them(shared):
    world, client = shared
    columns = client.get("/v2/models/flights").json()["parameters"]["columns"]
    row = [700.0, 17.5, 0.2, 7.5, 11.0]
    one = {"name": "input", "shape": [1, 5], "datatype": "FP32", "data": row}
    many = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in zip(columns, row, strict=True)
    ]
    path = "/v2/models/flights/versions/1/infer"
    first, second = (client.post(path, json={"inputs": inputs}).json() for inputs in ([one], many))
    assert [output["name"] for output in first["outputs"]] == ["prediction", "probability"]
    assert (first["outputs"], first["model_version"]) == (second["outputs"], "1")
    assert sum(list(r.features) == row and not r.entities for r in read_predictions(world.settings.prediction_log)) == 2
    huge = one | {"data": [10**400, 1, 1, 1, 1]}
    assert "error" in client.post(path, json={"inputs": [huge]}).json()


def test_every_class_has_its_probability_where_features_are_looked_up_too(shared):
    _, client = shared
    sent = {"carrier": ["UA"] * 12, "origin": ["EWR"] * 12, "distance": [700.0] * 12, "hour": [17.5] * 12}
    inputs = [
        {"name": name, "shape": [12], "datatype": "BYTES" if isinstance(data[0], str) else "FP64", "data": data}
        for name, data in sent.items()
    ]
    wanted = [{"name": "probabilities"}, {"name": "probability"}]
    asked = {"inputs": inputs, "outputs": wanted, "parameters": {"event_time": REQUEST["event_time"]}}
    answer = client.post("/v2/models/flights/infer", json=asked).json()
    every, best = answer["outputs"]
    rows = np.array(every["data"]).reshape(every["shape"])
    assert (every["shape"], best["data"]) == ([12, 2], rows.max(axis=1).tolist())
    assert np.allclose(rows.sum(axis=1), 1)


def test_metrics_count_every_prediction_by_variant(shared):
    _, client = shared
    before = _latency_count(client.get("/metrics").text)
    client.post("/predict", json={"instances": [REQUEST] * 7})
    text = client.get("/metrics").text
    assert _latency_count(text) - before == 7
    assert (
        'model_route_percent{deployment="flights",model_name="flights",model_version="2",variant="canary"} 20.0' in text
    )


def _latency_count(text: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith("model_prediction_latency_seconds_count")]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_a_regression_has_a_value_and_no_probability(world):
    world.deploy(1, world.add_model(1, "regression"))
    with world.gateway() as url:
        answer = httpx.post(f"{url}/predict", json=REQUEST).json()
        assert isinstance(answer["prediction"], float)
        assert not {"probability", "confidence"} & set(answer)


def test_a_gateway_starts_empty_and_serves_once_something_is_deployed_which_grpc_tells(world):
    port = free_port()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, world.gateway(grpc_port=port) as url:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = (health_pb2.HealthCheckResponse.ServingStatus.Name(one.status) for one in watched)
        assert next(states) == "NOT_SERVING"
        empty = httpx.get(f"{url}/health")
        assert (empty.status_code, empty.json()["detail"]) == (503, "nothing is deployed yet")
        assert httpx.post(f"{url}/predict", json=REQUEST).status_code == 503
        world.deploy(1, world.add_model(1))
        eventually(lambda: httpx.get(f"{url}/health").status_code == 200)
        assert next(states) == "SERVING"  # and goes on to watch, which does not hold up the end


def test_a_corrupted_version_leaves_the_old_table_serving_until_its_files_are_restored(world):
    world.deploy(1, world.add_model(1))
    broken = world.add_model(2)
    graph = world.root / "artifacts" / broken.source / ONNX_FILE
    content = graph.read_bytes()
    graph.write_bytes(content[:-1])
    with world.gateway() as url:
        world.deploy(2, broken)
        eventually(lambda: httpx.get(f"{url}/health").json()["status"] == "degraded")
        assert "not those registered" in httpx.get(f"{url}/health").json()["fault"]["detail"]
        assert httpx.post(f"{url}/predict", json=REQUEST).json()["model_version"] == "1"
        graph.write_bytes(content)
        eventually(lambda: httpx.post(f"{url}/predict", json=REQUEST).json()["model_version"] == "2")


@pytest.mark.parametrize("content", ["{", "[]", '{"deployment": 1}'])
def test_a_malformed_route_file_leaves_the_old_table_serving(world, content):
    world.deploy(1, world.add_model(1))
    with world.gateway() as url:
        (world.settings.route_folder / "flights.json").write_text(content)
        eventually(lambda: httpx.get(f"{url}/health").json()["status"] == "degraded")
        assert httpx.post(f"{url}/predict", json=REQUEST).status_code == 200


def test_swaps_under_load_fail_no_request(world):
    variants = [world.add_model(version) for version in (1, 2, 3)]
    world.deploy(1, variants[0])
    statuses: list[int] = []
    revisions: set[int] = set()
    done = threading.Event()

    def load(url: str) -> None:
        with httpx.Client(base_url=url) as client:
            while not done.is_set():
                answer = client.post("/predict", json=REQUEST)
                statuses.append(answer.status_code)
                revisions.add(answer.json().get("route_revision", 0))

    with world.gateway() as url:
        threads = [threading.Thread(target=load, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for revision in range(2, 12):
            world.deploy(revision, variants[revision % 3])
            eventually(lambda expected=revision: expected in revisions)
        done.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert set(range(2, 12)) <= revisions
    logged = sum(1 for _ in read_predictions(world.settings.prediction_log))
    assert logged == len(statuses)


def test_a_port_in_use_is_told_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Unavailable, match="cannot listen") as caught:
        bind("127.0.0.1", taken.getsockname()[1])
    assert "--port" in caught.value.remedy
