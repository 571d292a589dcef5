"""Models that the stock client logged, of many flavors: deployed by address, served as they were."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from noria.surface.cli.processes import Child
from support import mlflow_models_environment, noria

pytestmark = pytest.mark.peer
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[httpx.Client, dict[str, Any], Path]]:
    """A gateway that serves all of them, what each should answer, and the project's folder."""
    folder = tmp_path_factory.mktemp("flavors") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    settings = (folder / "noria.toml").read_text().replace('[policies."*"', '[policies."hourly*"')
    (folder / "noria.toml").write_text(settings)
    server = Child("server", folder, 0)
    try:
        script = [mlflow_models_environment(), HERE / "mlflow_models_script.py", server.url]
        done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for name in found:
        noria("deploy", f"models:/{name}/1", cwd=folder)
    gateway = Child("serve", folder, 0)
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client, found, folder
    gateway.stop()


@pytest.mark.parametrize("name", ["mixed", "three-classes", "values", "xgboost", "lightgbm", "sentences", "classic"])
def test_a_model_answers_as_it_did_where_it_was_trained(served, name):
    client, found, _ = served
    body = {"dataframe_split": {key: found[name]["rows"][key] for key in ("columns", "data")}}
    answer = client.post(f"/models/{name}/invocations", json=body)
    assert answer.status_code == 200, answer.text
    expected = found[name]["answers"]
    if isinstance(expected[0], float):
        assert answer.json()["predictions"] == pytest.approx(expected, rel=1e-6)
    else:
        assert answer.json()["predictions"] == expected


def test_the_other_endpoints_answer_for_models_of_texts_and_of_several_classes(served):
    client, found, _ = served
    rows = found["mixed"]["rows"]
    row = dict(zip(rows["columns"], rows["data"][0], strict=True))
    by_name = client.post("/models/mixed/predict", json={"features": row}).json()
    in_order = client.post("/models/mixed/predict", json={"features": rows["data"][0]}).json()
    assert by_name["prediction"] == in_order["prediction"] == found["mixed"]["answers"][0]
    assert by_name["confidence"] in ("very_high", "high", "medium", "low")
    three = client.post("/models/three-classes/predict", json={"features": found["three-classes"]["rows"]["data"][0]})
    assert three.json()["prediction"] in ("low", "mid", "high") and 0 < three.json()["probability"] <= 1
    assert client.get("/models/mixed/openapi.json").json()["components"]["schemas"]["mixed.Row"]
    unknown = client.post("/models/mixed/predict", json={"features": row | {"plan": "nobody's"}})
    assert unknown.status_code == 400, unknown.text


def test_a_python_model_takes_its_params(served):
    client, found, _ = served
    rows = {key: found["sentences"]["rows"][key] for key in ("columns", "data")}
    answer = client.post("/models/sentences/invocations", json={"dataframe_split": rows, "params": {"word": "has"}})
    assert [one["text"].split()[1] for one in answer.json()["predictions"]] == ["has"] * 5


def test_a_graph_is_served_as_tensors(served):
    client, found, _ = served
    tensor = {"name": "X", "shape": [5, 4], "datatype": "FP32", "data": found["graph"]["rows"]}
    answer = client.post("/v2/models/graph/infer", json={"inputs": [tensor]}).json()
    labels = next(output for output in answer["outputs"] if output["datatype"] == "INT64")
    assert labels["data"] == [int(one) for one in found["graph"]["answers"]]
    for body in ({"inputs": found["graph"]["rows"]}, {"instances": [{"X": row} for row in found["graph"]["rows"]]}):
        both = client.post("/models/graph/invocations", json=body).json()["predictions"]
        assert both[labels["name"]] == labels["data"]
    assert client.post("/models/graph/invocations", json={"inputs": [["a"]]}).status_code == 400
    assert client.post("/models/graph/invocations", json={"inputs": [[1.0]]}).status_code == 400


def test_a_prediction_of_what_another_library_logged_is_traced(served):
    client, found, folder = served
    columns, (row, *_) = (found["mixed"]["rows"][key] for key in ("columns", "data"))
    body = {"features": row, "prediction_id": "traced"}
    answer = client.post("/models/mixed/predict", json=body).json()
    traced = json.loads(noria("trace", "traced", "--json", cwd=folder).stdout)
    assert traced["prediction"]["prediction"] == answer["prediction"]
    assert list(traced["features"]) == columns and traced["run"]["run_id"]
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": found["graph"]["rows"][0]}
    client.post("/v2/models/graph/infer", json={"inputs": [tensor], "parameters": {"prediction_id": "tensor"}})
    traced = json.loads(noria("trace", "tensor", "--json", cwd=folder).stdout)
    assert traced["prediction"]["prediction"] is None


def test_what_was_prepared_says_how(served):
    _, _, folder = served
    rows = {row["deployment"]: row for row in json.loads(noria("deploy", "list", "--json", cwd=folder).stdout)}
    assert set(rows) == {"mixed", "three-classes", "values", "xgboost", "lightgbm", "sentences", "classic", "graph"}
    again = json.loads(noria("deploy", "models:/mixed/1", "--json", cwd=folder).stdout)
    assert "rows checked, 0 labels flipped" in again[0]["prepared"]
