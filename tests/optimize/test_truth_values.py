"""Classes False and True, or 0.0 and 1.0: answered as such wherever the model is asked, and never as 0 and 1."""

from __future__ import annotations

import shutil

import httpx
import msgspec
from sklearn.linear_model import LogisticRegression

from noria.optimize.bundle import write_bundle
from noria.optimize.conversion.run import _task_of
from noria.rollout.routes import RouteTable, Variant, publish
from noria.store.blobs import folder_digest
from optimize.test_prepare import DOUBLES, ROWS, prepared
from serving.gateway_world import LAST_SEEN, World


def test_truth_values_and_floats_are_answered_as_what_they_are(tmp_path):
    model = LogisticRegression().fit(ROWS, ROWS.a > 0)
    (tmp_path / "artifacts").mkdir()
    found = prepared(tmp_path / "artifacts", model, DOUBLES)
    assert (found.bundle.runtime, repr(found.bundle.classes)) == ("onnx", "(False, True)")
    floats = _task_of(LogisticRegression().fit(ROWS, (ROWS.a > 0).astype(float)))[1]
    shutil.copytree(tmp_path / "artifacts/prepared", tmp_path / "artifacts/floats")
    write_bundle(tmp_path / "artifacts/floats", msgspec.structs.replace(found.bundle, classes=tuple(floats)))
    world, rows = World(tmp_path), ROWS.head(3).to_numpy().tolist()
    for name in ("prepared", "floats"):
        variant = Variant("champion", name, 1, name, folder_digest(tmp_path / "artifacts" / name), 100.0)
        publish(RouteTable(name, 1, [variant], "test", LAST_SEEN), tmp_path / f"routes/{name}.json")
    with world.gateway() as url, httpx.Client(base_url=url) as client:
        for name, kind, datatype in [("prepared", bool, "BOOL"), ("floats", float, "FP64")]:
            told = [kind(one) for one in model.predict(ROWS.head(3))]
            one = client.post(f"/models/{name}/predict", json={"features": rows[0]}).json()["prediction"]
            invoked = client.post(f"/models/{name}/invocations", json={"instances": rows}).json()["predictions"]
            tensor = {"name": "input", "datatype": "FP64", "shape": [3, 3], "data": rows}
            outputs = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}).json()["outputs"]
            assert repr(one) == repr(told[0])
            assert repr(invoked) == repr(told)
            assert repr(outputs[0]["data"]) == repr(told) and outputs[0]["datatype"] == datatype
