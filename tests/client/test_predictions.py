"""The Python and command-line clients, and the load generator, against a gateway process."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from noria.client import PredictionClient
from noria.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from noria.monitoring.log import REWARDS, RewardRecord, read_labels, read_predictions, read_records
from serving.gateway_world import REQUEST, World, new_world
from support import noria

AT = datetime(2013, 3, 1, 12, 30, tzinfo=UTC)
ENTITIES = {"carrier": "UA", "origin": "EWR"}
FEATURES = {"distance": 700, "hour": 17.5}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    world = new_world(tmp_path_factory.mktemp("gateway"))
    world.deploy(1, world.add_model(1))
    with world.gateway() as url:
        yield world, url


@pytest.fixture
def client(gateway: tuple[World, str]) -> Iterator[PredictionClient]:
    with PredictionClient(gateway[1], deployment="flights") as made:
        yield made


def test_one_row_and_many_are_answered_alike(client):
    one = client.predict(FEATURES, entities=ENTITIES, event_time=AT, prediction_id="a")
    listed = client.predict([700, 17.5], entities=ENTITIES, event_time=AT)
    many = client.predict_many([{"features": FEATURES, "entities": ENTITIES, "event_time": AT}] * 3)
    assert (one.prediction_id, one.model_version, one.variant) == ("a", "1", "champion")
    assert {answer.score for answer in (one, listed, *many)} == {one.score}
    assert 0.5 <= one.probability <= 1 and one.confidence == "very_high"


def test_tensors_go_there_and_back_as_bytes(client):
    row = np.array([[700, 17.5, 0.2, 7.5, 11.0]] * 2)
    found = client.infer({"input": row})
    assert {name: len(tensor) for name, tensor in found.items()} == dict.fromkeys(found, 2)
    score = client.predict(FEATURES, entities=ENTITIES, event_time=AT).score
    assert any(
        np.allclose(tensor.reshape(2, -1)[0, -1], score) for tensor in found.values() if tensor.dtype.kind == "f"
    )


def test_outcomes_reach_the_log(gateway, client):
    answer = client.predict(FEATURES, entities=ENTITIES, event_time=AT, unit_id="u")
    client.label(answer.prediction_id, 1, event_time=AT)
    client.reward(2.5, prediction_id=answer.prediction_id, metric="revenue")
    log = gateway[0].settings.prediction_log
    assert answer.prediction_id in {record.prediction_id for record in read_predictions(log)}
    assert answer.prediction_id in {record.prediction_id for record in read_labels(log)}
    assert (2.5, "revenue") in {(record.value, record.metric) for record in read_records(log, REWARDS, RewardRecord)}


def test_refusals_are_the_errors_they_are(gateway, client):
    with pytest.raises(InvalidInput, match="not a number") as refused:
        client.predict({"distance": "far", "hour": 1}, entities=ENTITIES)
    assert refused.value.remedy
    with pytest.raises(InvalidInput) as refused:
        client.predict_many([{"features": FEATURES}, {"features": FEATURES, "entities": ENTITIES}])
    assert refused.value.details
    with pytest.raises(InvalidInput, match="no JSON"):
        client.predict({"distance": object()})
    with PredictionClient(gateway[1], deployment="trains") as other, pytest.raises(NotFound, match="trains"):
        other.predict(FEATURES)
    with PredictionClient("http://127.0.0.1:1") as nobody, pytest.raises(Unavailable, match="does not answer"):
        nobody.predict(FEATURES)
    for url in ("127.0.0.1:8000", "ftp://host", "http://host:x", "http://host/path"):
        with pytest.raises(InvalidInput, match="names no gateway"):
            PredictionClient(url)


def test_who_does_not_answer_in_time_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            PredictionClient(url, timeout_seconds=0.2) as client,
            pytest.raises(DeadlineExceeded, match="no answer"),
        ):
            client.predict(FEATURES)


def test_a_busy_gateway_is_asked_again_and_a_closed_connection_replaced():
    answers = [
        b"HTTP/1.1 503 x\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n",
        b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"a":1}',
        b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"a":2}',
    ]

    def answer_each_and_hang_up(server: socket.socket) -> None:
        for answer in answers:
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_each_and_hang_up, args=(server,))
        thread.start()
        with PredictionClient(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
            assert [client.info(), client.info()] == [{"a": 1}, {"a": 2}]
        thread.join()


def test_threads_share_a_client(client):
    found: list[float | None] = []

    def ask() -> None:
        found.extend(client.predict(FEATURES, entities=ENTITIES, event_time=AT).score for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400 and len(set(found)) == 1


def test_the_command_line_asks_about_rows(gateway, tmp_path):
    row = ["--url", gateway[1], "--entity", "carrier=UA", "--entity", "origin=EWR", "--json"]
    whole = json.dumps({"features": FEATURES, "event_time": REQUEST["event_time"], "prediction_id": "mine"})
    (found,) = json.loads(noria("predict", "rows", whole, *row, cwd=tmp_path).stdout)
    assert (found["prediction_id"], found["model_version"]) == ("mine", "1")
    assert (
        len(json.loads(noria("predict", "rows", whole, whole.replace("mine", "other"), *row, cwd=tmp_path).stdout)) == 2
    )
    for bad, words in [("{", "row 1 is no JSON"), ("3", "neither an object nor a list"), ('{"x": 1}', "distance")]:
        done = noria("predict", "rows", bad, *row, cwd=tmp_path, check=False)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_load_is_put_on_and_measured(gateway, tmp_path):
    world, url = gateway
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text("".join(json.dumps(REQUEST | {"unit_id": f"load-{n}"}) + "\n" for n in range(5)))
    common = ["bench", "serve", url, "--body", str(bodies), "--seconds", "1", "--warmup", "0.2", "--json"]
    free = json.loads(noria(*common, "--connections", "4", cwd=tmp_path).stdout)
    assert free["requests"] > 100 and free["faults"] == {}
    assert free["milliseconds"]["p50"] <= free["milliseconds"]["p99"] <= free["milliseconds"]["p100"]
    steady = json.loads(noria(*common, "--rate", "50", cwd=tmp_path).stdout)
    assert 35 <= steady["requests"] <= 65
    logged = [record for record in read_predictions(world.settings.prediction_log) if record.unit.startswith("load")]
    assert len(logged) >= free["requests"] + steady["requests"]


def test_load_that_is_refused_is_told(gateway, tmp_path):
    common = ["bench", "serve", gateway[1], "--seconds", "0.3", "--warmup", "0", "--json"]
    done = noria(*common, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "takes entity keys (carrier, origin)" in done.stderr
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text('{"features": {}}\n')
    done = noria(*common, "--body", str(bodies), cwd=tmp_path, check=False)
    assert done.returncode == 1 and set(json.loads(done.stdout)["faults"]) == {"HTTP 400"}
    bodies.write_text("{\n")
    done = noria(*common, "--body", str(bodies), cwd=tmp_path, check=False)
    assert done.returncode == 2 and "bodies.jsonl:1 is no JSON" in done.stderr
