"""A served world in a folder, as deployments leave it: artifacts, an online store, a route table; no project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.features import Entity, FeatureView, Field, OnlineFeatures, ViewSpec
from noria.features.types import Float64
from noria.optimize.bundle import ONNX_FILE, Bundle, write_bundle
from noria.rollout.routes import RouteTable, Variant, publish
from noria.store import open_keyvalue
from noria.store.blobs import FolderBlobs, folder_digest
from noria.surface.http.gateway import GatewayOptions

NAMES = tuple(f"f{place}" for place in range(30))
ONLINE = 15
"""So many of the inputs, the last ones, are looked up where views are asked for."""
VIEWS = tuple(
    ViewSpec(f"view{place}", ("user",), tuple(f"v{place}{field}" for field in range(5)), None, "error")
    for place in range(3)
)
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """Paths below ``root``."""

    root: Path

    @property
    def options(self) -> GatewayOptions:
        online = f"sqlite:///{self.root}/online.db"
        return GatewayOptions(
            self.root / "routes", FolderBlobs(self.root / "artifacts"), online, self.root / "log", shared=self._shared
        )

    @property
    def _shared(self) -> Path | None:
        return self.root / "shared" if (self.root / "shared").exists() else None

    def add_version(self, version: int, graph: Path, *, views: bool) -> tuple[str, str]:
        """Store the model as a version; its source and digest."""
        sent = NAMES[:-ONLINE] if views else NAMES
        bundle = Bundle(
            "classification", sent, VIEWS if views else (), "X", "probabilities", options={"algorithm": "RandomForest"}
        )
        source = f"models/forest/{version}"
        folder = self.root / "artifacts" / source
        folder.mkdir(parents=True)
        (folder / ONNX_FILE).write_bytes(graph.read_bytes())
        write_bundle(folder, bundle)
        return source, folder_digest(folder)

    def materialize(self, rows: NDArray[np.float64]) -> None:
        """Put the last inputs of each row online, its number being the key."""
        import polars as pl

        store = open_keyvalue(self.options.online_store, self.root)
        for place, spec in enumerate(VIEWS):
            values = rows[:, -ONLINE:][:, place * 5 : place * 5 + 5]
            columns = dict(zip(spec.fields, values.T, strict=True))
            frame = pl.DataFrame({"user": list(map(str, range(len(rows)))), **columns})
            frame = frame.with_columns(event_timestamp=_NOW, created_timestamp=_NOW)
            schema = [Field(name=name, dtype=Float64) for name in spec.fields]
            view = FeatureView(name=spec.name, entities=[Entity(name="user")], schema=schema, source=lambda: frame)  # noqa: B023
            OnlineFeatures(store).materialize(view, frame)
        store.close()

    def deploy(self, variants: Sequence[Variant]) -> None:
        """Publish the route table."""
        table = RouteTable("forest", 1, tuple(variants), "benchmark", _NOW)
        (self.root / "routes").mkdir(exist_ok=True)
        publish(table, self.root / "routes/forest.json")


def new_world(
    root: Path, graph: Path, *, split: bool = True, shadow: bool = False, online: NDArray[np.float64] | None = None
) -> World:
    """Two versions of the same model, 90 to 10, or one alone; a third as shadow; inputs online if rows are given."""
    world = World(root)
    shares = [("champion", 90.0, False), ("challenger", 10.0, False)] if split else [("champion", 100.0, False)]
    shares += [("shadow", 100.0, True)] if shadow else []
    variants = []
    for version, (name, percent, is_shadow) in enumerate(shares, start=1):
        source, digest = world.add_version(version, graph, views=online is not None)
        variants.append(Variant(name, "forest", version, source, digest, percent, is_shadow))
    if online is not None:
        world.materialize(online)
    world.deploy(variants)
    return world
