"""Nobody takes a registered model's files away, in a folder or an object store, one by one or with all around them."""

from __future__ import annotations

import httpx
import pytest

FILES = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(params=["server", "production_server"])
def client(request):
    with httpx.Client(base_url=request.getfixturevalue(request.param), timeout=60) as client:
        yield client


def call(client, path, method="POST", **body):
    return client.request(method, f"/api/2.0/mlflow{path}", json=body)


def registered(client, name):
    """The folder of a version's run, with one file of the version."""
    run = call(client, "/runs/create", experiment_id="0").json()["run"]["info"]
    folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert client.put(f"{FILES}/{folder}/m/model.pkl", content=b"good").status_code == 200
    call(client, "/registered-models/create", name=name)
    made = call(client, "/model-versions/create", name=name, source=f"{run['artifact_uri']}/m", run_id=run["run_id"])
    assert made.status_code == 200, made.text
    return folder


def test_neither_the_file_nor_a_folder_around_it_is_deleted_or_replaced(client):
    folder = registered(client, "kept")
    for path in (f"{folder}/m/model.pkl", f"{folder}/m", folder, folder.split("/artifacts")[0], "0"):
        answer = client.delete(f"{FILES}/{path}")
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), path
    for path in (f"{folder}/m/model.pkl", f"{folder}/m/more.py", f"{folder}/m//./model.pkl"):
        assert client.put(f"{FILES}/{path}", content=b"bad").status_code == 403, path
    assert client.get(f"{FILES}/{folder}/m/model.pkl").content == b"good"
    assert client.put(f"{FILES}/{folder}/beside.txt", content=b"free").status_code == 200
    assert client.delete(f"{FILES}/{folder}/beside.txt").status_code == 200


def test_an_upload_that_ends_after_the_registration_changes_nothing(client):
    run = call(client, "/runs/create", experiment_id="0").json()["run"]["info"]
    folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert client.put(f"{FILES}/{folder}/m/model.pkl", content=b"good").status_code == 200

    def slowly():
        yield b"ba"
        call(client, "/registered-models/create", name="slow")
        source = f"{run['artifact_uri']}/m"
        assert call(client, "/model-versions/create", name="slow", source=source, run_id=run["run_id"]).is_success
        yield b"d"

    with httpx.Client(base_url=client.base_url) as other:
        assert other.put(f"{FILES}/{folder}/m/model.pkl", content=slowly()).status_code == 403
    assert client.get(f"{FILES}/{folder}/m/model.pkl").content == b"good"


def test_a_logged_model_of_a_version_is_not_deleted_or_declared_failed(client):
    run = call(client, "/runs/create", experiment_id="0").json()["run"]["info"]["run_id"]
    made = call(client, "/logged-models", experiment_id="0", name="x", source_run_id=run).json()["model"]["info"]
    path, source = f"/logged-models/{made['model_id']}", f"models:/{made['model_id']}"
    call(client, "/registered-models/create", name="logged")
    version = call(client, "/model-versions/create", name="logged", source=source).json()["model_version"]
    assert (version["source"], version["run_id"]) == (source, run)
    uri = client.get(
        "/api/2.0/mlflow/model-versions/get-download-uri", params={"name": "logged", "version": "1"}
    ).json()
    assert uri == {"artifact_uri": made["artifact_uri"]}
    assert call(client, path, "PATCH", status="LOGGED_MODEL_READY").status_code == 200
    assert call(client, path, "PATCH", status="LOGGED_MODEL_UPLOAD_FAILED").status_code == 403
    assert call(client, path, "DELETE").status_code == 403
