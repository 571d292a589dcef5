"""Classes False and True: answered as such wherever the model is asked, and never as 0 and 1."""

from __future__ import annotations

import httpx
from sklearn.linear_model import LogisticRegression

from noria.rollout.routes import RouteTable, Variant, publish
from noria.store.blobs import folder_digest
from optimize.test_prepare import DOUBLES, ROWS, prepared
from serving.gateway_world import LAST_SEEN, World


def test_truth_values_are_answered_as_truth_values(tmp_path):
    model = LogisticRegression().fit(ROWS, ROWS.a > 0)
    (tmp_path / "artifacts").mkdir()
    found = prepared(tmp_path / "artifacts", model, DOUBLES)
    assert (found.bundle.runtime, repr(found.bundle.classes)) == ("onnx", "(False, True)")
    world, rows = World(tmp_path), ROWS.head(3).to_numpy().tolist()
    told = [bool(one) for one in model.predict(ROWS.head(3))]
    digest = folder_digest(tmp_path / "artifacts/prepared")
    table = RouteTable("truth", 1, [Variant("champion", "truth", 1, "prepared", digest, 100.0)], "test", LAST_SEEN)
    publish(table, tmp_path / "routes/truth.json")
    with world.gateway() as url, httpx.Client(base_url=url) as client:
        one = client.post("/predict", json={"features": rows[0]}).json()["prediction"]
        invoked = client.post("/invocations", json={"instances": rows}).json()["predictions"]
        tensor = {"name": "input", "datatype": "FP64", "shape": [3, 3], "data": rows}
        outputs = client.post("/v2/models/truth/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert one is told[0]
    assert repr(invoked) == repr(told)
    assert repr(outputs[0]["data"]) == repr(told) and outputs[0]["datatype"] == "BOOL"
