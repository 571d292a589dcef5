"""Stock Open Inference clients, Triton's and KServe's, against a live gateway over HTTP and gRPC."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from noria.optimize.bundle import ONNX_FILE, Bundle, write_bundle
from noria.optimize.conversion.closeness import closest
from noria.optimize.onnx import convert
from noria.rollout.routes import RouteTable, Variant, publish
from noria.store.blobs import folder_digest
from servers import free_port
from serving.gateway_world import LAST_SEEN, World, new_world
from support import inference_clients_environment

pytestmark = pytest.mark.peer
ROWS = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Iterator[tuple[dict[str, Any], LogisticRegression]]:
    """What the clients print, and the model they asked."""
    world = new_world(tmp_path_factory.mktemp("clients"))
    random = np.random.default_rng(1)
    rows = random.normal(size=(500, 3))
    model = LogisticRegression().fit(rows, (rows.sum(axis=1) > 0).astype(int))
    _deploy_numbers(world, model, rows)
    _deploy_texts(world)
    port = free_port()
    script = Path(__file__).with_name("inference_script.py")
    found: dict[str, Any] = {}
    with world.gateway(grpc_port=port) as url:
        for client in ("triton", "kserve"):
            done = subprocess.run(
                [inference_clients_environment(), script, client, url.rpartition(":")[2], str(port), "sums", "colors"],
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            found |= json.loads(done.stdout.strip().splitlines()[-1])
    yield found, model


def _deploy_numbers(world: World, model: LogisticRegression, rows: np.ndarray) -> None:
    folder = world.root / "artifacts/models/sums/1"
    folder.mkdir(parents=True)
    graph = convert(model, "classification", ["a", "b", "c"], rows, folder).graph
    write_bundle(folder, Bundle("classification", ("a", "b", "c"), (), graph.numbers, graph.score, graph.dtype))
    _publish(world, "sums", folder)


def _deploy_texts(world: World) -> None:
    """A classifier of texts and numbers whose classes are texts."""
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"size": random.normal(size=400), "color": random.choice(["red", "blue"], 400)})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["color"]), remainder="passthrough"), LogisticRegression()
    ).fit(frame, np.where(frame["color"] == "red", "warm", "cold"))
    numbers, texts = frame[["size"]].to_numpy(), frame[["color"]].to_numpy(dtype=object)
    columns = [("size", "double"), ("color", "string")]
    graph = closest(model, columns, model.predict_proba(frame)[:, -1], numbers, texts, labels=True).graph
    folder = world.root / "artifacts/models/colors/1"
    folder.mkdir(parents=True)
    (folder / ONNX_FILE).write_bytes(graph.content)
    bundle = Bundle(
        "classification",
        ("size", "color"),
        (),
        graph.numbers,
        graph.score,
        graph.dtype,
        kinds={"color": "string"},
        onnx_strings=graph.strings,
        classes=("cold", "warm"),
    )
    write_bundle(folder, bundle)
    _publish(world, "colors", folder)


def _publish(world: World, name: str, folder: Path) -> None:
    variant = Variant("champion", name, 1, f"models/{name}/1", folder_digest(folder), 100.0)
    publish(RouteTable(name, 1, (variant,), "test", LAST_SEEN), world.settings.route_folder / f"{name}.json")


def test_every_way_of_asking_gives_what_the_model_says(asked):
    found, model = asked
    probabilities = model.predict_proba(ROWS)
    expected = [model.predict(ROWS).tolist(), probabilities.max(axis=1).tolist()]
    for way in ("http json", "http binary", "http gzip", "http deflate", "grpc"):
        assert found[way][0] == expected[0], way
        assert found[way][1] == pytest.approx(expected[1], abs=1e-6), way
    for way in ("kserve rest", "kserve grpc"):
        assert found[way] == pytest.approx(expected[1], abs=1e-6), way


def test_health_metadata_and_index_are_what_clients_expect(asked):
    found, _ = asked
    assert found["http ready"] == found["grpc ready"] == [True, True, True]
    assert found["grpc not ready"] is False
    assert found["http metadata"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 3]}]
    assert found["grpc metadata"][0]["shape"] == ["-1", "3"]
    assert {one["name"] for one in found["http index"]} == {"sums", "colors"}
    assert {one["state"] for one in found["grpc index"]["models"]} == {"READY"}


def test_refusals_have_the_protocols_own_status_and_say_why(asked):
    found, _ = asked
    assert found["http refused"][0] == "400" and "expected [rows, 3]" in found["http refused"][1]
    assert found["grpc refused"][0] == "StatusCode.INVALID_ARGUMENT" and "[rows, 3]" in found["grpc refused"][1]
    assert found["grpc unknown"][0] == "StatusCode.NOT_FOUND"


def test_a_stream_answers_in_order_and_outlives_requests_that_fail(asked):
    found, _ = asked
    assert found["stream"] == [None if place % 5 == 0 else str(place) for place in range(20)]


def test_texts_go_in_and_come_out(asked):
    found, _ = asked
    assert found["texts http"] == found["texts grpc"] == ["warm", "cold"]
