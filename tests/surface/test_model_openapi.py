"""The OpenAPI document of a gateway, held against what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import Draft202012Validator

from noria.optimize.bundle import read_bundle, write_bundle
from noria.store.blobs import folder_digest
from noria.surface.cli.bench import _made_up
from noria.surface.cli.processes import Child
from serving.gateway_world import World, new_world
from serving.pool import REQUEST

FEATURES = {"distance": 700.0, "hour": True}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A gateway of a classifier that looks nothing up, and takes a column of booleans."""
    world: World = new_world(tmp_path_factory.mktemp("plain"))
    variant = world.add_model(1, views=False)
    folder = world.root / "artifacts" / variant.source
    write_bundle(folder, msgspec.structs.replace(read_bundle(folder), kinds={"hour": "boolean"}))
    world.deploy(1, replace(variant, digest=folder_digest(folder)))
    with world.gateway() as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def looking_up(trained: Path) -> Iterator[httpx.Client]:
    child = Child("serve", trained, 0)
    with httpx.Client(base_url=child.url) as client:
        yield client
    child.stop()


def held_against(client: httpx.Client, path: str, body: Any) -> tuple[bool, bool, int]:
    """Whether the document allows the body, and the answer to it; and the answer's status."""
    document = client.get("/openapi.json").json()
    operation = document["paths"][path]["post"]
    answer = client.post(path, json=body)
    told = operation["responses"]["200" if answer.status_code == 200 else "default"]
    (answered,) = told["content"].values()
    (asked,) = operation["requestBody"]["content"].values()
    schemas = [one["schema"] | {"components": document["components"]} for one in (asked, answered)]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    allowed, kept = (
        Draft202012Validator(schema).is_valid(one) for schema, one in zip(schemas, (body, answer.json()), strict=True)
    )
    assert answer.status_code in (200, 400), answer.text
    return allowed, kept, answer.status_code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"features": FEATURES}),
        ("/predict", {"features": list(FEATURES.values())}),
        ("/predict", {"instances": [{"features": FEATURES}] * 2}),
        ("/predict/batch", {"instances": [{"features": FEATURES}] * 2}),
        ("/predict/batch", {"features": [[700.0, True]] * 2, "prediction_id": "mine"}),
        ("/predict/batch", {"features": []}),
        ("/invocations", {"dataframe_records": [FEATURES]}),
        (
            "/v2/models/flights/infer",
            {"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 2], "data": [700, 1], "parameters": {}}]},
        ),
    ],
)
def test_what_is_answered_is_documented(plain, path, body):
    assert held_against(plain, path, body) == (True, True, 200)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"features": FEATURES | {"more": 1}}),
        ("/predict", {"features": [1]}),
        ("/predict/batch", {"features": [[1]]}),
        ("/predict/batch", {"features": FEATURES}),
        ("/predict", {"features": FEATURES | {"hour": None}}),
        ("/invocations", {}),
        ("/v2/models/flights/infer", {"inputs": [{"name": "input", "datatype": "", "shape": [0], "data": []}]}),
        ("/labels", {"labels": [{"prediction_id": "", "event_time": "2026-02-28T00:00:00Z", "label": 1}]}),
        ("/rewards", {"rewards": [{"value": 1, "unit_id": ""}]}),
    ],
)
def test_what_is_refused_is_not_allowed(plain, path, body):
    assert held_against(plain, path, body) == (False, True, 400)


@pytest.mark.parametrize(("path", "rows"), [("/predict", 1), ("/predict/batch", 3)])
def test_requests_that_are_made_up_for_load_are_taken(plain, path, rows):
    for body in _made_up(plain.get("/model/info").json(), rows)[:3]:
        assert plain.post(path, content=body).status_code == 200, body


def test_answers_say_no_more_than_is_documented(plain):
    schemas = plain.get("/openapi.json").json()["paths"]["/predict/batch"]["post"]["responses"]["200"]
    kinds = schemas["content"]["application/json"]["schema"]["anyOf"]
    answer = plain.post("/predict/batch", json={"features": [[700.0, True]]}).json()
    assert set(answer) == set(kinds[1]["properties"])
    assert set(answer["predictions"][0]) == set(kinds[1]["properties"]["predictions"]["items"]["properties"])


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_rows_that_are_looked_up_are_documented_too(looking_up, path):
    assert held_against(looking_up, path, {"instances": [REQUEST] * 2}) == (True, True, 200)


def test_rows_of_plain_values_are_not_allowed_where_something_is_looked_up(looking_up):
    assert held_against(looking_up, "/predict/batch", {"features": [[12, 5]]}) == (False, True, 400)


def test_a_deployment_is_documented_by_its_own_name(looking_up):
    paths = looking_up.get("/openapi.json").json()["paths"]
    assert {"/v2/models/demand", "/v2/models/demand/infer"} <= set(paths)
    for path in paths:
        assert looking_up.options(path).status_code == 405, path


def test_a_csv_has_booleans_as_pandas_writes_them(plain):
    def scored(hour: str) -> httpx.Response:
        headers = {"content-type": "text/csv"}
        return plain.post("/invocations", content=f"distance,hour\n700,{hour}\n", headers=headers)

    for word, number in [("True", "1"), ("true", "1"), ("False", "0"), ("FALSE", "0")]:
        assert scored(word).json() == scored(number).json() != {}
        assert scored(word).status_code == 200
    assert scored("yes").status_code == 400
    for word in ("", "NA", "NaN", "None", "null"):
        assert "hour' is null" in scored(word).text, word
    assert (
        plain.post("/invocations", content="distance,hour\nTrue,1\n", headers={"content-type": "text/csv"}).status_code
        == 400
    )


def test_generators_of_clients_are_told_what_is_in_every_list_and_which_key_to_send(plain):
    document = plain.get("/openapi.json").json()

    def lists(part: Any) -> Iterator[dict[str, Any]]:
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        if isinstance(part, dict) and part.get("type") == "array":
            yield part
        for one in inner:
            yield from lists(one)

    assert [one for one in lists(document) if "items" not in one] == []
    (by_name, in_order) = document["components"]["schemas"]["flights.Row"]["properties"]["features"]["oneOf"]
    assert in_order["items"] == {"type": ["number", "null", "boolean"]} and set(by_name["properties"]) == set(FEATURES)
    assert "security" not in document["paths"]["/predict"]["post"]
    answer = plain.post("/predict", json={"features": FEATURES}).json()
    assert set(answer) == set(document["components"]["schemas"]["flights.Prediction"]["properties"])
