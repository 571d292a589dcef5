"""Runtimes: what a graph refuses, and those that other packages bring by entry point."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from onnx import helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from noria.errors import InvalidInput, MissingExtra, NoriaError
from noria.monitoring.log import read_predictions
from noria.optimize.bundle import ONNX_FILE, Bundle, write_bundle
from noria.rollout.routes import RouteTable, Variant
from noria.serving import DataPlane, PredictionRequest
from noria.serving.items import outcome_of
from noria.serving.runtimes import load
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


def plane_of_graph(folder, graph: bytes, bundle: Bundle) -> DataPlane:
    """A data plane told to serve a graph."""
    model = folder / "artifacts/graph"
    model.mkdir(parents=True)
    (model / ONNX_FILE).write_bytes(graph)
    write_bundle(model, bundle)
    variant = Variant("champion", "graph", 1, "graph", folder_digest(model), 100.0)
    plane = DataPlane(FolderBlobs(folder / "artifacts"), f"sqlite:///{folder}/online.db", folder / "log")
    asyncio.run(plane.swap(RouteTable("graph", 1, [variant], "test", LAST_SEEN)))
    return plane


def answers(plane: DataPlane, rows: list[dict]) -> list:
    """Predictions of rows that are asked in one moment, or their errors."""

    async def ask():
        requests = [PredictionRequest(features=row) for row in rows]
        return await asyncio.gather(*(plane.predict(plane.find(), one) for one in requests), return_exceptions=True)

    return asyncio.run(ask())


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
    (metadata / "entry_points.txt").write_text("[noria.runtimes]\nlost = sums:Differences\n")
    with pytest.raises(MissingExtra, match=r"runtime 'lost' cannot be imported: .*Differences"):
        load(tmp_path, Bundle("regression", ("a",), runtime="lost"))


def test_a_runtime_that_nobody_provides_is_told_with_those_that_are(tmp_path):
    plane = plane_for(tmp_path, "nobody-has-it")
    with pytest.raises(NoriaError, match="nobody-has-it") as raised:
        plane.find()
    assert "onnx, lightgbm, xgboost, pyfunc, chain, ensemble, remote" in str(plane.fault.remedy) + str(raised.value)
    plane.close()


def test_what_a_graph_refuses_is_told_of_that_row_alone(tmp_path):
    encoder = make_pipeline(OneHotEncoder(), LogisticRegression()).fit([["basic"], ["pro"]], [0, 1])
    options = {id(encoder.steps[-1][1]): {"zipmap": False}}
    types = [("x", StringTensorType([None, 1]))]
    graph = convert_sklearn(encoder, initial_types=types, options=options).SerializeToString()
    bundle = Bundle("classification", ("plan",), onnx_strings="x", onnx_score="probabilities", kinds={"plan": "string"})
    plane = plane_of_graph(tmp_path, graph, bundle)
    first, refused, last = answers(plane, [{"plan": plan} for plan in ("basic", "nobody's", "pro")])
    plane.close()
    assert (first.prediction, last.prediction) == (0, 1)
    assert isinstance(refused, InvalidInput) and "Unknown Category" in refused.message
    assert refused.message.startswith("graph@1 refuses the rows: ")


@pytest.mark.parametrize("kind", ["long", "integer"])
def test_what_a_graph_would_cast_to_another_number_is_refused_of_that_row_alone(kind, tmp_path):
    model = LinearRegression().fit([[1], [2]], [10, 20])
    graph = convert_sklearn(model, initial_types=[("visits", Int64TensorType([None, 1]))])
    (taken,) = graph.graph.input
    taken.name = "taken"
    taken.type.tensor_type.elem_type = 11  # a double, cast as conversion casts it
    graph.graph.node.insert(0, helper.make_node("Cast", ["taken"], ["visits"], to=7))
    bundle = Bundle("regression", ("visits",), onnx_input="taken", onnx_score="variable", kinds={"visits": kind})
    plane = plane_of_graph(tmp_path, graph.SerializeToString(), bundle)
    good, *refused, last = answers(plane, [{"visits": value} for value in (1.0, None, 3.9, 2.0**70, -np.inf, -4.0)])
    plane.close()
    assert [good.prediction, last.prediction] == pytest.approx([10.0, -40.0], rel=1e-6)
    assert all(isinstance(one, InvalidInput) for one in refused)
    said = ["null", "3.9", "1.1805916207174113e+21", "-inf"]
    assert all(f"column 'visits' is {value}," in one.message for one, value in zip(refused, said, strict=True))


def test_a_regression_is_never_one_value_of_several(tmp_path):
    model = LinearRegression().fit([[1.0], [2.0]], [[10, 1], [20, 2]])
    graph = convert_sklearn(model, initial_types=[("x", DoubleTensorType([None, 1]))]).SerializeToString()
    plane = plane_of_graph(tmp_path, graph, Bundle("regression", ("a",), onnx_input="x", onnx_score="variable"))
    with pytest.raises(NoriaError, match="gives 2 values a row"):
        plane.find()
    plane.close()


def test_a_runtime_may_answer_in_a_column_or_in_numpys_own_numbers_but_not_with_a_table_a_row():
    bundle = Bundle("regression", ("a",))
    assert outcome_of(bundle, np.array([[1.5], [2.0]]), 2).predictions == [1.5, 2.0]
    (first, _) = outcome_of(bundle, [np.float32(1.5), 2], 2).predictions
    assert type(first) is float
    with pytest.raises(NoriaError, match=r"an array of shape \[1, 2, 2\]"):
        outcome_of(bundle, np.ones((1, 2, 2)), 1)
