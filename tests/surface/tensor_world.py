"""A gateway of models that take one tensor each, asked over HTTP and over gRPC."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import onnx
import pytest
from onnx import helper

from noria.optimize.bundle import GRAPH, ONNX_FILE, Bundle, TensorSpec, write_bundle
from noria.rollout.routes import RouteTable, Variant, publish
from noria.store.blobs import folder_digest
from noria.surface.grpc import open_inference_pb2 as messages
from servers import free_port
from serving.gateway_world import LAST_SEEN, World

ONNX_TYPES = {
    "INT64": onnx.TensorProto.INT64,
    "BOOL": onnx.TensorProto.BOOL,
    "BYTES": onnx.TensorProto.STRING,
    "FP16": onnx.TensorProto.FLOAT16,
}
RUNTIMES = """
import numpy as np

class Records:
    inline, concurrency = True, 1

    def __init__(self, folder, bundle):
        pass

    def score(self, rows):
        return [{"sum": float(row.sum()), "ok": True, "none": None} for row in rows.numbers]

    def infer(self, tensors):
        return {"y": np.zeros(len(tensors["x"]), dtype=complex)}  # of which the protocol has nothing

    def unload(self):
        pass
"""


@dataclass(frozen=True)
class Asked:
    """A gateway that serves ``square`` (INT64), ``flag`` (BOOL), ``word`` (BYTES) and ``half`` (FP16), over both.

    Beside these ``named``, a graph that was logged with columns a and b, whose squares it answers; ``records``, which
    answers rows with objects, as ``texts`` does, one of whose columns is text; and ``broken``, whose answers nobody can
    read.
    """

    http: httpx.Client
    rpc: grpc.Channel

    def infer(self, model: str, datatype: str, data: Any, shape: Sequence[int] | None = None, **more: Any) -> Any:
        """The answer to one input x of that JSON."""
        tensor = {"name": "x", "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data}
        return self.http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor], **more})

    def invoke(self, model: str, values: Any) -> httpx.Response:
        return self.http.post(f"/models/{model}/invocations", json={"inputs": values})

    def call(self, request: messages.ModelInferRequest) -> messages.ModelInferResponse:
        return self.rpc.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )(request, timeout=10)

    def stream(self, *requests: messages.ModelInferRequest) -> list[messages.ModelStreamInferResponse]:
        answers = self.rpc.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
        return list(answers(iter(requests), timeout=10))


@contextmanager
def asked_in(folder: Path) -> Iterator[Asked]:
    """The gateway, with all that it serves in ``folder``."""
    world = World(folder)
    for name, datatype in {"square": "INT64", "flag": "BOOL", "word": "BYTES", "half": "FP16"}.items():
        _deploy_graph(world, name, datatype)
    matrix = TensorSpec("x", "INT64", (-1, 2))
    named = Bundle("generic", tensors=(matrix,), outputs=(matrix,), options={"algorithm": GRAPH, "columns": ["a", "b"]})
    _deploy_graph(world, "named", "INT64", named)
    x = (TensorSpec("x", "INT64", (-1,)),)
    _deploy(world, "records", Bundle("generic", ("a", "b"), runtime="records"))
    _deploy(world, "texts", Bundle("generic", ("a", "b"), kinds={"b": "string"}, runtime="records"))
    _deploy(world, "broken", Bundle("generic", tensors=x, outputs=x, runtime="records"))
    port = free_port()
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PYTHONPATH", str(_installed(world.root / "site")), prepend=os.pathsep)
    with (
        world.gateway(grpc_port=port) as url,
        httpx.Client(base_url=url) as client,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        monkeypatch.undo()
        yield Asked(client, channel)


def _deploy_graph(world: World, name: str, datatype: str, bundle: Bundle | None = None) -> None:
    """Serve y = x, or y = x * x where x is an integer."""
    squared = datatype == "INT64"
    node = helper.make_node("Mul" if squared else "Identity", ["x", "x"] if squared else ["x"], ["y"])
    x, y = (
        helper.make_tensor_value_info(one, ONNX_TYPES[datatype], ["n"] if bundle is None else ["n", 2]) for one in "xy"
    )
    graph = helper.make_model(helper.make_graph([node], name, [x], [y]), opset_imports=[helper.make_opsetid("", 18)])
    graph.ir_version = 10
    given, found = (TensorSpec(one, datatype, (-1,)) for one in "xy")
    plain = Bundle("generic", tensors=(given,), outputs=(found,))
    _deploy(world, name, bundle or plain, graph.SerializeToString())


def _deploy(world: World, name: str, bundle: Bundle, graph: bytes = b"") -> None:
    """Serve a bundle as a registered model of another name."""
    source = f"models/registered-{name}/1"
    folder = world.root / "artifacts" / source
    folder.mkdir(parents=True)
    (folder / ONNX_FILE).write_bytes(graph)
    write_bundle(folder, bundle)
    variant = Variant("champion", f"registered-{name}", 1, source, folder_digest(folder), 100.0)
    publish(RouteTable(name, 1, (variant,), "test", LAST_SEEN), world.settings.route_folder / f"{name}.json")


def _installed(site: Path) -> Path:
    """A package with a runtime of its own."""
    metadata = site / "records-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "records.py").write_text(RUNTIMES)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: records\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[noria.runtimes]\nrecords = records:Records\n")
    return site


def request(model: str, datatype: str, **contents: Sequence[Any]) -> messages.ModelInferRequest:
    """One input x as typed contents."""
    (values,) = contents.values()
    asked = messages.ModelInferRequest(model_name=model, id=model)
    sent = messages.InferTensorContents(**contents)
    asked.inputs.add(name="x", datatype=datatype, shape=[len(values)], contents=sent)
    return asked
