"""A served world in a folder: real ONNX models, an online store, a route file, and a gateway process on it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from noria.features import Entity, FeatureView, Field, OnlineFeatures, ViewSpec
from noria.features.types import Float64
from noria.optimize.bundle import ONNX_FILE, Bundle, Task, write_bundle
from noria.rollout.routes import RouteTable, Variant, publish
from noria.store import open_keyvalue
from noria.store.blobs import FolderBlobs, folder_digest
from noria.surface.http.gateway import Gateway, GatewayOptions

CARRIER = ViewSpec("carrier", ("carrier",), ("late_share", "mean_delay"), None, "error")
WEATHER = ViewSpec("weather", ("origin",), ("wind",), 3_600_000, "null")
LAST_SEEN = datetime(2013, 3, 1, 12, tzinfo=UTC)
REQUEST = {
    "event_time": "2013-03-01T12:30:00Z",
    "entities": {"carrier": "UA", "origin": "EWR"},
    "features": {"distance": 700, "hour": 17.5},
}


@dataclass(frozen=True)
class World:
    """Paths and the makers of what lies there."""

    root: Path
    online_store: str = ""

    @property
    def settings(self) -> GatewayOptions:
        return GatewayOptions(
            self.root / "routes",
            FolderBlobs(self.root / "artifacts"),
            self.online_store or f"sqlite:///{self.root}/online.db",
            self.root / "log",
        )

    def add_model(self, version: int, task: Task = "classification", *, views: bool = True, seed: int = 0) -> Variant:
        """Train, convert and store a version; its variant as champion with all the traffic."""
        bundle = Bundle(
            task=task,
            request_columns=("distance", "hour"),
            views=(CARRIER, WEATHER) if views else (),
            onnx_input="X",
            onnx_score="probabilities" if task == "classification" else "variable",
            input_dtype="float64",
        )
        source = f"models/flights/{version}"
        folder = self.root / "artifacts" / source
        folder.mkdir(parents=True)
        (folder / ONNX_FILE).write_bytes(_graph(task, len(bundle.inputs), seed + version))
        write_bundle(folder, bundle)
        return Variant("champion", "flights", version, source, folder_digest(folder), 100.0)

    def materialize(self, spec: ViewSpec, rows: dict[str, Sequence[float]]) -> None:
        """Write rows by entity as of ``LAST_SEEN``."""
        import polars as pl  # here, as the gateway's process, which is this file too, starts without it

        (key,), columns = spec.join_keys, zip(*rows.values(), strict=True)
        frame = pl.DataFrame({key: list(rows), **dict(zip(spec.fields, columns, strict=True))})
        frame = frame.with_columns(event_timestamp=LAST_SEEN, created_timestamp=LAST_SEEN)
        schema = [Field(name=name, dtype=Float64) for name in spec.fields]
        view = FeatureView(name=spec.name, entities=[Entity(name=key)], schema=schema, source=lambda: frame)
        store = open_keyvalue(self.settings.online_store, self.root)
        OnlineFeatures(store).materialize(view, frame)
        store.close()

    def deploy(self, revision: int, *variants: Variant) -> None:
        """Publish a route table for gateways to pick up."""
        publish(
            RouteTable("flights", revision, variants, "test", LAST_SEEN), self.settings.route_folder / "flights.json"
        )

    @contextmanager
    def gateway(self, grpc_port: int = 0) -> Iterator[str]:
        """A gateway in a process of its own; yields its URL."""
        command = [sys.executable, __file__, str(self.root), str(grpc_port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stderr is not None
            drained = threading.Thread(target=process.stderr.read, daemon=True)
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(process.stderr.read())
            drained.start()
            try:
                yield f"http://127.0.0.1:{int(line)}"
            finally:
                process.terminate()
                process.wait(10)


def new_world(root: Path) -> World:
    """A world with two known entities and nothing deployed."""
    world = World(root)
    world.materialize(CARRIER, {"UA": [0.2, 7.5], "7": [0.1, 1.0]})
    world.materialize(WEATHER, {"EWR": [11.0]})
    return world


def _graph(task: Task, width: int, seed: int) -> bytes:
    from skl2onnx import to_onnx  # here, so that the gateway's process, which is this file too, starts without them
    from sklearn.linear_model import LinearRegression, LogisticRegression

    random = np.random.default_rng(seed)
    rows = random.normal(size=(200, width)) * 10
    target = rows @ random.normal(size=width)
    model = LogisticRegression() if task == "classification" else LinearRegression()
    model.fit(rows, target > 0 if task == "classification" else target)
    options = {"zipmap": False} if task == "classification" else None
    return to_onnx(model, rows[:1], options=options, target_opset=18).SerializeToString()


if __name__ == "__main__":
    import structlog

    from noria.surface.http.listen import serve
    from noria.surface.http.sockets import bind

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = World(Path(sys.argv[1])).settings
    if port := int(sys.argv[2]):
        from noria.surface.grpc.server import start

        rpc = partial(start, address=f"127.0.0.1:{port}", largest_bytes=2**24)
        settings = replace(settings, rpc=rpc)
    gateway = Gateway(settings)
    serve(gateway, [bind("127.0.0.1", 0)], ready=lambda port: print(port, flush=True))
