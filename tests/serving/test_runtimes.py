"""Runtimes of third parties: an installed package provides one by entry point."""

from __future__ import annotations

import asyncio

import pytest

from noria.errors import NoriaError
from noria.monitoring.log import read_predictions
from noria.optimize.bundle import Bundle, write_bundle
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
