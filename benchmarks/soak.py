"""A gateway at 80% of its capacity for ten minutes, with another version swapped in every five seconds.

Counts the requests that failed, and the answers that are missing in the log. ``SECONDS`` and
``SWAP_SECONDS`` shorten it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from serving_process import free_port, serving
from serving_wire import json_post
from serving_world import NAMES, new_world

from noria.client.load import NEVER_SENT, Load, Measured, measure
from noria.client.predictions import Address
from noria.monitoring.log import read_batches
from noria.rollout.routes import RouteTable, Variant, publish

SECONDS = float(os.environ.get("SECONDS", "600"))
SWAP_SECONDS = float(os.environ.get("SWAP_SECONDS", "5"))
_CAPACITY_SECONDS = 5.0
_SHARE = 0.8
_VERSIONS = 3
_SLACK = 1.2
"""How much larger the process may be at the end than after the first twentieth of the time."""


def graph_of(seed: int) -> bytes:
    """A random forest that differs by its seed, as ONNX."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(seed)
    rows = random.normal(size=(500, len(NAMES)))
    model = RandomForestClassifier(30, max_depth=8, random_state=seed).fit(rows, rows[:, 0] + rows[:, 1] > 0)
    return to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=18).SerializeToString()


class Repeated(threading.Thread):
    """Does something every so many seconds, until it is stopped; ``times`` is how often it has."""

    def __init__(self, seconds: float, do: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.times = 0
        self._seconds, self._do, self._done = seconds, do, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(self._seconds):
            self._do()
            self.times += 1

    def stop(self) -> None:
        """Do it no more."""
        self._done.set()
        self.join()


def next_version(route: Path, variants: Sequence[Variant], revision: int) -> None:
    """Deploy the version whose turn it is."""
    variant = variants[revision % len(variants)]
    publish(RouteTable("forest", revision, (variant,), "soak", datetime.now(UTC)), route)


def soak(folder: Path) -> tuple[Measured, int, int, list[float]]:
    """What was measured, how many swaps there were, how many answers are missing in the log, and the sizes seen."""
    (folder / "graph").mkdir()
    paths = [folder / f"graph/{seed}.onnx" for seed in range(_VERSIONS)]
    for seed, path in enumerate(paths):
        path.write_bytes(graph_of(seed))
    world = new_world(folder / "world", paths[0], split=False)
    variants = []
    for version, path in enumerate(paths, start=10):
        source, digest = world.add_version(version, path, views=False)
        variants.append(Variant("champion", "forest", version, source, digest, 100.0))
    rows = np.random.default_rng(1).normal(size=(256, len(NAMES))).round(4)
    bodies = [json.dumps({"features": row.tolist()}).encode() for row in rows]
    port = free_port()
    command = [sys.executable, "-m", "serving_gateway", world.root, "--port", str(port)]
    probe = json_post("/predict", {"features": rows[0].tolist()})
    with serving([command], port, probe, world.root, {"PYTHONPATH": str(Path(__file__).parent)}) as server:
        load = Load(Address.of(server.url), "/predict", bodies, seconds=_CAPACITY_SECONDS, warmup_seconds=0)
        capacity = measure(load)
        revisions, sizes = count(2), list[float]()
        swaps = Repeated(
            SWAP_SECONDS, lambda: next_version(world.root / "routes/forest.json", variants, next(revisions))
        )
        looks = Repeated(1, lambda: sizes.append(server.megabytes("Rss")))
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{capacity.per_second * _SHARE:,.0f} requests/s", total=SECONDS)
            load = replace(load, seconds=SECONDS, rate=capacity.per_second * _SHARE)
            found = measure(load, lambda seconds, _: bar.update(task, completed=seconds))
        swaps.stop()
        looks.stop()
    logged = sum(len(batch.prediction_ids) for batch in read_batches(world.root / "log"))
    missing = len(capacity.latencies) + len(found.latencies) - logged
    return found, swaps.times, max(0, missing), sizes


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="noria-soak-") as scratch:
        found, swaps, missing, sizes = soak(Path(scratch))
    failed = sum(number for fault, number in found.faults.items() if fault != NEVER_SENT)
    early = max(sizes[: max(1, len(sizes) // 20)])
    growth = round(max(sizes[-max(1, len(sizes) // 20) :]) / early, 3)
    rows = [
        {"what": f"failed of {len(found.latencies) + failed:,} requests, {swaps} swaps", "ours": failed, "goal": 0},
        {"what": "answers that are missing in the log", "ours": missing, "goal": 0},
        {"what": "size of the process at the end, of that in the beginning", "ours": growth, "goal": _SLACK},
    ]
    document = {
        "bench": "soak",
        "rows": [row | {"peer": None, "ratio": None, "met": row["ours"] <= row["goal"]} for row in rows],
        "seconds": SECONDS,
        "requests_per_second": round(found.per_second, 1),
        "p50_ms": round(found.percentile(50) * 1000, 2),
        "p99_ms": round(found.percentile(99) * 1000, 2),
        "faults": dict(found.faults),
        "megabytes": [round(size, 1) for size in (sizes[0], sizes[-1])],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
