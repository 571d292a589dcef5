"""Runtimes: what a graph refuses, and those that other packages bring by entry point."""

from __future__ import annotations

import asyncio

import pytest
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import StringTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from noria.errors import InvalidInput, NoriaError
from noria.monitoring.log import read_predictions
from noria.optimize.bundle import ONNX_FILE, Bundle, write_bundle
from noria.rollout.routes import RouteTable, Variant
from noria.serving import DataPlane, PredictionRequest
from noria.store.blobs import FolderBlobs, folder_digest
from serving.gateway_world import LAST_SEEN

PACKAGE = """
class Sums:
    inline, concurrency = True, 1

    def __init__(self, folder, bundle):
        self.plus = float((folder / "plus.txt").read_text())

    def score(self, rows):
        return rows.numbers.sum(axis=1) + self.plus

    def unload(self):
        pass
"""


def plane_for(folder, runtime: str) -> DataPlane:
    """A data plane told to serve a model of ``runtime``."""
    model = folder / "artifacts/sums"
    model.mkdir(parents=True)
    (model / "plus.txt").write_text("0.5")
    write_bundle(model, Bundle("regression", ("a", "b"), runtime=runtime))
    variant = Variant("champion", "sums", 1, "sums", folder_digest(model), 100.0)
    plane = DataPlane(FolderBlobs(folder / "artifacts"), f"sqlite:///{folder}/online.db", folder / "log")
    asyncio.run(plane.swap(RouteTable("sums", 1, [variant], "test", LAST_SEEN)))
    return plane


def test_an_installed_package_brings_a_runtime(tmp_path, monkeypatch):
    site = tmp_path / "site"
    metadata = site / "sums-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "sums.py").write_text(PACKAGE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sums\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[noria.runtimes]\nsums = sums:Sums\n")
    monkeypatch.syspath_prepend(str(site))
    plane = plane_for(tmp_path, "sums")

    async def ask():
        return await plane.predict(plane.find(), PredictionRequest(features={"a": 1.0, "b": 2.0}))

    assert asyncio.run(ask()).prediction == 3.5
    plane.close()
    (record,) = read_predictions(tmp_path / "log")
    assert record.score == 3.5


def test_a_runtime_that_nobody_provides_is_told_with_those_that_are(tmp_path):
    plane = plane_for(tmp_path, "nobody-has-it")
    with pytest.raises(NoriaError, match="nobody-has-it") as raised:
        plane.find()
    assert "onnx, lightgbm, xgboost, pyfunc, chain, ensemble, remote" in str(plane.fault.remedy) + str(raised.value)
    plane.close()


def test_what_a_graph_refuses_is_told_of_that_row_alone(tmp_path):
    model = tmp_path / "artifacts/plans"
    model.mkdir(parents=True)
    encoder = make_pipeline(OneHotEncoder(), LogisticRegression()).fit([["basic"], ["pro"]], [0, 1])
    options = {id(encoder.steps[-1][1]): {"zipmap": False}}
    types = [("x", StringTensorType([None, 1]))]
    (model / ONNX_FILE).write_bytes(convert_sklearn(encoder, initial_types=types, options=options).SerializeToString())
    bundle = Bundle("classification", ("plan",), onnx_strings="x", onnx_score="probabilities", kinds={"plan": "string"})
    write_bundle(model, bundle)
    variant = Variant("champion", "plans", 1, "plans", folder_digest(model), 100.0)
    plane = DataPlane(FolderBlobs(tmp_path / "artifacts"), f"sqlite:///{tmp_path}/online.db", tmp_path / "log")
    asyncio.run(plane.swap(RouteTable("plans", 1, [variant], "test", LAST_SEEN)))

    async def ask():
        requests = [PredictionRequest(features={"plan": plan}) for plan in ("basic", "nobody's", "pro")]
        return await asyncio.gather(*(plane.predict(plane.find(), one) for one in requests), return_exceptions=True)

    first, refused, last = asyncio.run(ask())
    plane.close()
    assert (first.prediction, last.prediction) == (0, 1)
    assert isinstance(refused, InvalidInput) and "Unknown Category" in refused.message
