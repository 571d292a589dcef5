"""Python models as they were logged: tensors and optional columns come to them as MLflow would give them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from noria.optimize.prepare import prepare
from noria.rollout.routes import RouteTable, Variant, publish
from noria.store.blobs import folder_digest
from serving.gateway_world import LAST_SEEN, World
from support import mlflow_models_environment

pytestmark = pytest.mark.peer
SCRIPT = Path(__file__).with_name("save_python_models.py")
NAMES = ("sums", "named", "total", "matrix", "columns", "scaled", "dates", "bycolumn", "nothings", "category")
NAMES += ("nested", "orders")
NESTED = {"array": [1.0, 2.5], "object": {"a": "é"}, "map": {"k": "v"}, "any": [1, None], "binary": "aGk=", "count": 7}
TENSOR = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    """A gateway that serves all of them."""
    folder, python = tmp_path_factory.mktemp("models"), mlflow_models_environment()
    world = World(folder)
    subprocess.run([python, SCRIPT, folder / "saved"], check=True, cwd=folder, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NORIA_MODEL_PYTHON", str(python))
        for name in NAMES:
            out = folder / "artifacts" / name
            out.mkdir(parents=True)
            prepare(folder / "saved" / name, out)
            variant = Variant("champion", name, 1, name, folder_digest(out), 100.0)
            publish(RouteTable(name, 1, [variant], "test", LAST_SEEN), folder / "routes" / f"{name}.json")
        with world.gateway() as url, httpx.Client(base_url=url, timeout=60) as found:
            yield found


@pytest.fixture(scope="module")
def saved(client, tmp_path_factory) -> Path:
    """Where they were saved; with them what some answered there."""
    return next(tmp_path_factory.getbasetemp().glob("models*/saved"))


def answers(client: httpx.Client, name: str, body: dict[str, Any]) -> Any:
    """The predictions of /invocations."""
    answer = client.post(f"/models/{name}/invocations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def infer(client: httpx.Client, name: str, *inputs: tuple[str, str, list[int], list[Any]]) -> dict[str, Any]:
    """The outputs of an infer request by name."""
    tensors = [dict(zip(("name", "datatype", "shape", "data"), one, strict=True)) for one in inputs]
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    return {one["name"]: (one["datatype"], one["shape"], one["data"]) for one in answer.json()["outputs"]}


def test_a_tensor_without_a_name_reaches_the_model_in_its_type(client):
    assert answers(client, "sums", {"inputs": TENSOR}) == answers(client, "sums", {"instances": TENSOR}) == [42.0, 3.0]
    flat = [number for row in TENSOR for part in row for number in part]
    assert infer(client, "sums", ("input", "FP32", [2, 2, 3], flat)) == {"output": ("FP32", [2], [42.0, 3.0])}
    described = client.get("/v2/models/sums").json()
    assert described["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 2, 3]}]
    assert described["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1]}]
    assert client.post("/models/sums/invocations", json={"inputs": TENSOR[0]}).status_code == 400


def test_tensors_with_names_reach_the_model_by_them(client):
    body = {"inputs": {"p": [[1, 2, 3]], "q": [[10]], "word": ["a"]}}
    assert answers(client, "named", body) == {"total": [16.0], "word": ["a!"]}
    found = infer(
        client, "named", ("p", "FP32", [1, 3], [1, 2, 3]), ("q", "INT64", [1, 1], [10]), ("word", "BYTES", [1], ["a"])
    )
    assert found == {"total": ("FP64", [1], [16.0]), "word": ("BYTES", [1], ["a!"])}


def test_a_matrix_of_floats_is_sent_as_rows_and_reaches_the_model_in_its_type(client):
    assert answers(client, "matrix", {"inputs": [[1, 2], [3, 4]]}) == [3.0, 7.0]
    assert client.post("/models/matrix/predict", json={"features": [1, 2]}).json()["prediction"] == 3.0


def test_a_model_that_answers_another_number_of_rows_is_told_so(client):
    answer = client.post("/models/total/invocations", json={"inputs": TENSOR[:1]})
    assert answer.status_code == 500
    assert "answered 1 rows with 'output' of shape [2]" in answer.text


def test_params_reach_a_model_of_tensors(client):
    assert answers(client, "scaled", {"inputs": TENSOR}) == [42.0, 3.0]
    assert answers(client, "scaled", {"inputs": TENSOR, "params": {"k": 10.0}}) == [210.0, 15.0]
    tensor = {"name": "input", "datatype": "FP32", "shape": [2, 2, 3], "data": TENSOR}
    sent = {"inputs": [tensor], "parameters": {"k": 10.0}}
    assert client.post("/v2/models/scaled/infer", json=sent).json()["outputs"][0]["data"] == [210.0, 15.0]


def test_each_instant_is_read_for_itself_and_comes_without_zone_in_nanoseconds(client):
    told = {
        "2024-01-31T10:00:00": "2024-01-31 10:00:00",
        "1969-12-31": "1969-12-31 00:00:00",
        "2024-01-31T10:00:00.5Z": "2024-01-31 10:00:00.500000",
        "2024-01-31T10:00:00+02:00": "2024-01-31 08:00:00",
        "13/02/2024": "2024-02-13 00:00:00",
        "01/02/2024": "2024-01-02 00:00:00",  # alone and beside another: which of its numbers is the day
        None: "NaT",
    }
    expected = [f"datetime64[ns] {one}" for one in told.values()]
    assert answers(client, "dates", {"dataframe_records": [{"at": text} for text in told]}) == expected
    assert [answers(client, "dates", {"dataframe_records": [{"at": text}]})[0] for text in told] == expected


def test_a_dict_of_columns_is_one_object_a_row(client):
    rows = [{"double": 3.0, "word": "x"}, {"double": 5.0, "word": "x"}]
    assert answers(client, "bycolumn", {"dataframe_records": [{"a": 1.5}, {"a": 2.5}]}) == rows
    assert client.post("/models/bycolumn/predict", json={"features": {"a": 1.5}}).json()["prediction"] == rows[0]


def test_nothing_is_null_and_bytes_are_base64_and_columns_without_names_are_places(client):
    (found,) = answers(client, "nothings", {"instances": [[1.0, 2.0]]})
    assert found == {"na": None, "nat": None, "bytes": "YWI=", "columns": [0, 1]}


def test_nested_values_and_bytes_reach_the_model_as_what_they_are(client):
    read = {"any": [1, None], "array": [1.0, 2.5], "binary": b"hi", "count": 7, "map": {"k": "v"}, "object": {"a": "é"}}
    told = repr(read)
    split = {"columns": list(NESTED), "data": [list(NESTED.values())]}
    by_column = {name: [value] for name, value in NESTED.items()}
    for rows in ({"dataframe_records": [NESTED]}, {"dataframe_split": split}, {"inputs": by_column}):
        assert answers(client, "nested", rows) == [told]
    for features in (NESTED, list(NESTED.values())):
        assert client.post("/models/nested/predict", json={"features": features}).json()["prediction"] == told
    texts = {name: value if name == "binary" else json.dumps(value) for name, value in NESTED.items()}
    columns = [(name, "BYTES", [1, 1], [texts[name]]) for name in NESTED if name != "count"]
    assert infer(client, "nested", *columns, ("count", "INT64", [1, 1], [7]))["prediction"][2] == [told]
    table = io.StringIO()
    csv.writer(table).writerows([texts, texts.values()])
    answer = client.post("/models/nested/invocations", content=table.getvalue(), headers={"content-type": "text/csv"})
    assert answer.json() == {"predictions": [told]}
    assert client.get("/models/nested/openapi.json").status_code == 200
    for anything in (5, 2.5, "5", False, {"k": [1]}):
        rows = {"instances": [{"features": NESTED | {"any": anything}}]}
        (found,) = client.post("/models/nested/predict/batch", json=rows).json()["predictions"]
        assert found["prediction"] == repr(read | {"any": anything})


@pytest.mark.parametrize(
    "spoilt", [{"array": ["a"]}, {"array": 1.5}, {"object": {"c": 1}}, {"map": None}, {"count": [7]}]
)
def test_nested_values_of_another_shape_are_refused(client, spoilt):
    bodies = {"predict": {"features": NESTED | spoilt}, "invocations": {"dataframe_records": [NESTED | spoilt]}}
    assert [client.post(f"/models/nested/{path}", json=body).status_code for path, body in bodies.items()] == [400, 400]


def test_a_predict_with_type_hints_is_given_values_of_these_types(client):
    values = [{"item": "nut"}, {"item": "bolt", "count": 3}]
    doubled = [{"item": "NUT", "count": 2}, {"item": "BOLT", "count": 6}]
    assert answers(client, "orders", {"inputs": values}) == doubled
    rows = {"instances": [{"features": [value]} for value in values]}
    found = client.post("/models/orders/predict/batch", json=rows).json()["predictions"]
    assert [one["prediction"] for one in found] == doubled
    refused = client.post("/models/orders/invocations", json={"inputs": [{"count": 1}]})
    assert refused.status_code == 400 and "item" in refused.text


def test_a_classifier_of_categories_says_how_likely_its_label_is(client, saved):
    told = json.loads((saved / "category.json").read_text())
    assert answers(client, "category", {"dataframe_records": told["rows"]}) == told["labels"]
    for row, label, probability in zip(told["rows"], told["labels"], told["probabilities"], strict=True):
        found = client.post("/models/category/predict", json={"features": row}).json()
        assert (found["prediction"], found["probability"]) == (label, pytest.approx(probability))
        assert found["confidence"] in ("very_high", "high", "medium", "low")
    columns = [("plan", "BYTES", [2, 1], ["pro", "new"]), ("age", "FP64", [2, 1], [30, 60])]
    assert infer(client, "category", *columns)["probability"][1] == [2]
    assert answers(client, "category", {"dataframe_records": [{"plan": None, "age": 40}]})[0] in ("grew", "stayed")


def test_optional_columns_may_be_left_out_and_are_null_then(client):
    whole = {"flag": True, "amount": 1.5, "count": 3, "word": "a"}
    told = {"flag": "True", "amount": "1.5", "count": "3", "word": "a"}
    assert answers(client, "columns", {"dataframe_records": [whole]}) == [told]
    (lacking,) = answers(client, "columns", {"dataframe_records": [{"flag": False}]})
    assert (lacking["flag"], lacking["amount"]) == ("False", "nan")
    assert lacking["word"] in ("None", "nan")
    row = client.post("/models/columns/predict", json={"features": {"flag": False}}).json()
    assert row["prediction"] == lacking
    unknown = client.post("/models/columns/predict", json={"features": {"flag": False, "other": 1}})
    assert unknown.status_code == 400 and "unknown features: other" in unknown.text
    assert "count" not in lacking  # a column of whole numbers knows no null: MLflow leaves it out, too
    refused = client.post("/models/columns/invocations", json={"dataframe_records": [{"amount": 1.0}]})
    assert refused.status_code == 400 and "columns are missing: flag" in refused.text


@pytest.mark.parametrize("spoilt", [{"flag": 0.5}, {"flag": None}, {"count": 3.9}, {"count": 2.0**70}])
def test_what_a_column_of_whole_numbers_cannot_hold_is_refused(client, spoilt):
    row = {"flag": True, "amount": 1.5, "count": 3, "word": "a"} | spoilt
    for path, body in [("invocations", {"dataframe_records": [row]}), ("predict", {"features": row})]:
        answer = client.post(f"/models/columns/{path}", json=body)
        assert answer.status_code == 400, answer.text
        assert f"column '{next(iter(spoilt))}' is" in answer.text
