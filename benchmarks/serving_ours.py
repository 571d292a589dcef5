"""Our gateway in the shapes that are measured: bare, full, with a shadow, in two processes, with online features."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serving_load import HUNDRED, MANY, ONE, TEN_THOUSAND, Case
from serving_measure import Data, Figures, measure, tell
from serving_process import NotServing, Running, free_port, serving
from serving_wire import BATCH, BINARY, SEEDS, Rows, Wire, json_post, v2
from serving_world import ONLINE, new_world

from noria.optimize.bundle import read_bundle
from noria.serving.runtimes import Rows as RuntimeRows
from noria.serving.runtimes.onnx import OnnxRuntime

HERE = Path(__file__).parent
_BATCHED_ROWS = 64


@dataclass(frozen=True)
class Shape:
    """One way to run it: what is deployed, the flags and number of its processes, what it is asked."""

    name: str
    cases: Sequence[tuple[Case, Wire]]
    deployed: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    processes: int = 1


NO_OP, BARE, FULL, SHADOW = "no-op ASGI app", "noria, bare", "noria", "noria with a shadow"
WORKERS, LOOKUP = "noria, two workers", "noria with online features"
HUNDRED_BATCH = replace(HUNDRED, name="100 rows, 4 connections, /predict/batch")
HUNDRED_BINARY = replace(HUNDRED, name="100 rows, 4 connections, binary")
LARGE_BATCH = replace(TEN_THOUSAND, name="10,000 rows, 2 connections, /predict/batch")
LARGE_BINARY = replace(TEN_THOUSAND, name="10,000 rows, 2 connections, binary")
_EVERYTHING = (
    (ONE, SEEDS),
    (MANY, SEEDS),
    (HUNDRED, v2()),
    (HUNDRED_BINARY, BINARY),
    (HUNDRED_BATCH, BATCH),
    (TEN_THOUSAND, v2()),
    (LARGE_BINARY, BINARY),
    (LARGE_BATCH, BATCH),
)


def shapes(data: Data) -> Sequence[Shape]:
    """All of them; those that are compared stand beside each other."""
    looked_up = online(data.rows)
    return (
        Shape(NO_OP, [(MANY, SEEDS)], flags=["--no-op"]),
        Shape(BARE, [(ONE, SEEDS), (MANY, SEEDS)], {"split": False}, ["--bare"]),
        Shape(FULL, _EVERYTHING),
        Shape(LOOKUP, [(ONE, looked_up), (MANY, looked_up)], {"online": data.rows}),
        Shape(SHADOW, [(MANY, SEEDS)], {"shadow": True}),
        Shape(WORKERS, [(MANY, SEEDS)], flags=["--shared"], processes=2),
    )


def online(table: Rows) -> Wire:
    """Half of a row's values sent, the others looked up by its number."""
    numbers = {row.tobytes(): str(number) for number, row in enumerate(table)}

    def ask(rows: Rows) -> Any:
        sent, key = rows[0, :-ONLINE].tolist(), numbers[rows[0].tobytes()]
        return json_post("/predict", {"entities": {"user": key}, "features": sent})

    return Wire(ask, SEEDS.read)


def take_turn(figures: dict[str, Figures], model: Path, data: Data, scratch: Path) -> None:
    """Measure every shape once."""
    for shape in shapes(data):
        folder = scratch / "ours"
        found = figures.setdefault(shape.name, Figures())
        if found.failed:
            continue
        try:
            _measure(shape, found, model, data, folder)
        except NotServing as error:
            found.failed = str(error)
            tell(f"{shape.name}: FAILED: {error}")
        shutil.rmtree(folder)  # the log, too: it has every row


def _measure(shape: Shape, figures: Figures, model: Path, data: Data, folder: Path) -> None:
    world, port = new_world(folder, model / "model.onnx", **shape.deployed), free_port()
    (folder / "shared").mkdir()
    command = [sys.executable, "-m", "serving_gateway", folder, "--port", str(port), *shape.flags]
    environment = {"PYTHONPATH": str(HERE), "NORIA_GATEWAY_WORKERS": str(shape.processes)}
    probe = data.probe(shape.cases[0][1])
    with serving([command] * shape.processes, port, probe, world.root, environment) as server:
        _await_all(folder / "server.log", shape.processes)
        if shape.name == NO_OP:
            figures.runs.setdefault(MANY.name, [])  # it predicts nothing that could be compared
        measure(shape.name, figures, server, data, shape.cases, 1)
        if shape.name == SHADOW and not _shadowed(server):
            raise NotServing("not measured: the gateway sends a shadow no copies yet")


def _await_all(log: Path, processes: int) -> None:
    deadline = time.monotonic() + 30
    while log.read_text().count("accepts requests\n") < processes:
        if time.monotonic() > deadline:
            raise NotServing("not all processes accept requests")
        time.sleep(0.02)


def _shadowed(server: Running) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return any(line.startswith("model_shadow_predictions_total{") for line in text.splitlines())


def batched_row_seconds(model: Path, scratch: Path, rows: Rows) -> float:
    """What a row costs in the runtime alone, scored 64 at a time."""
    folder = scratch / "batched"
    source, _ = new_world(folder, model / "model.onnx").add_version(9, model / "model.onnx", views=False)
    runtime = OnnxRuntime(folder / "artifacts" / source, read_bundle(folder / "artifacts" / source))
    taken = []
    for start in range(0, 5000, _BATCHED_ROWS):
        batch = RuntimeRows(rows[start : start + _BATCHED_ROWS])
        began = time.perf_counter()
        runtime.score(batch)
        taken.append((time.perf_counter() - began) / len(batch))
    runtime.unload()
    return sorted(taken)[len(taken) // 2]


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 2)
