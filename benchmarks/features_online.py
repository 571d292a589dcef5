"""Online features against Feast's SQLite store: `make bench NAME=features_online`.

Three views with 14 features over the same Parquet files, materialized on both sides and looked up by the same ids;
the answers are compared first: values, statuses and event times. ENTITIES sets how many there are (20,000). Both take
their turns one after the other; figures are medians. Prints a line a measure and, last, one JSON object.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from noria.features import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from noria.features.readers import FeatureColumn
from noria.features.retrieval import OnlineResponse
from noria.features.types import parse_type

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".bench/feast"
INSTALL = ["feast[duckdb]==0.67.*"]
REPEATS = 5
ENTITIES = int(os.environ.get("ENTITIES", "20000"))
START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=60)
WRITTEN_A_SECOND = 20_000
VIEWS: dict[str, dict[str, str]] = {
    "profile": {"age": "Int64", "country": "String", "premium": "Bool", "score": "Float64", "visits": "Int64"},
    "spending": {"mean": "Float64", "sum": "Float64", "count": "Int64", "largest": "Float64", "last": "Float64"},
    "clicks": {"hour": "Int64", "day": "Int64", "rate": "Float64", "device": "String"},
}
FEATURES = [f"{name}:{field}" for name, fields in VIEWS.items() for field in fields]
PROJECT = """
[project]
name = "bench"
[model]
name = "none"
task = "regression"
[features]
online = "{url}"
"""


class Feast:
    """The peer's process; it answers one request at a time."""

    def __init__(self, folder: Path, data: Path) -> None:
        script = Path(__file__).parent / "peers/feast_online.py"
        command = [PEER / "bin/python", script, folder, data, json.dumps(VIEWS)]
        with (folder / "feast.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def share_processor(self) -> None:
        """Both sides on one processor from now on: of a virtual machine's, one is often half as fast as another."""
        processor = min(os.sched_getaffinity(0))
        for process in (0, self._process.pid):
            os.sched_setaffinity(process, {processor})

    def close(self) -> None:
        self._process.communicate()


class Noria:
    """Our side, in this process: a project of its own for each store."""

    def __init__(self, folder: Path, data: Path, engine: str) -> None:
        folder.mkdir()
        self.url = f"{engine}:///{folder}/online.{engine}"
        (folder / "noria.toml").write_text(PROJECT.format(url=self.url))
        self._store = FeatureStore(folder)
        self._store.apply([view_of(name, data) for name in VIEWS])

    def materialize(self) -> float:
        """Seconds for all views."""
        began = time.perf_counter()
        self._store.materialize(START, END)
        return time.perf_counter() - began

    def respond(self, ids: Sequence[int]) -> OnlineResponse:
        return self._store.get_online_features(
            features=FEATURES, entity_rows=[{"user_id": one} for one in ids], full_feature_names=True
        )

    def lookup(self, ids: list[int]) -> dict[str, FeatureColumn]:
        """Values, statuses and event times (UTC microseconds) of each feature."""
        return {name: column for name, column in self.respond(ids).columns.items() if name != "user_id"}

    def time(self, batches: Sequence[list[int]]) -> list[float]:
        """Microseconds of each lookup."""
        taken = []
        for ids in batches:
            began = time.perf_counter()
            self.respond(ids).to_dict(include_event_timestamps=True)
            taken.append((time.perf_counter() - began) * 1e6)
        return taken

    def close(self) -> None:
        self._store.close()


def view_of(name: str, data: Path) -> FeatureView:
    """One of the views over the file of its name."""
    return FeatureView(
        name=name,
        entities=[Entity(name="user_id", value_type=ValueType.INT64)],
        schema=[Field(name=field, dtype=parse_type(kind)) for field, kind in VIEWS[name].items()],
        source=FileSource(path=str(data / f"{name}.parquet"), created_timestamp_column="created_timestamp"),
    )


def write_data(folder: Path) -> None:
    """Every entity twice, an older and a newer row, in no order; three in a hundred values are null."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(7)
    makers = {
        "Int64": lambda n: rng.integers(0, 10**12, n),
        "Float64": lambda n: rng.normal(size=n),
        "Bool": lambda n: rng.integers(0, 2, n).astype(bool),
        "String": lambda n: np.array([f"text {value}" for value in rng.integers(0, 1000, n)], dtype=object),
    }
    for name, fields in VIEWS.items():
        ids = rng.permutation(np.repeat(np.arange(ENTITIES), 2))
        seconds = rng.integers(0, 50 * 86400, len(ids))
        columns = {field: pl.Series(makers[kind](len(ids)).tolist()) for field, kind in fields.items()}
        frame = pl.DataFrame({"user_id": ids, **columns}).with_columns(
            event_timestamp=pl.lit(START) + pl.duration(seconds=pl.Series(seconds)),
            created_timestamp=pl.lit(START) + pl.duration(seconds=pl.Series(seconds + 60)),
        )
        missing = [pl.when(pl.Series(rng.random(len(ids)) > 0.03)).then(pl.col(field)).alias(field) for field in fields]
        frame.with_columns(missing).write_parquet(folder / f"{name}.parquet")


def compare(ours: Noria, feast: Feast) -> None:
    """Both must say the same of known and unknown entities."""
    ids = [*random.Random(1).sample(range(ENTITIES), 500), ENTITIES + 1, -5]
    mine, theirs = ours.lookup(ids), feast.ask(do="lookup", ids=ids)
    assert mine.keys() == theirs.keys()
    for name, (values, statuses, times) in theirs.items():
        found = mine[name]
        assert all(map(_same, found.values, values)), name
        assert all(map(_same_status, found.statuses, statuses)), name
        assert [0 if micros is None else micros // 10**6 for micros in found.event_timestamps] == times, name


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return one == other


def _same_status(ours: int, theirs: int) -> bool:
    """Feast calls a null that is stored PRESENT, though its protocol has a status for it."""
    return ours == theirs or (ours, theirs) == (2, 1)


def batches_of(entities: int, count: int) -> list[list[int]]:
    """Requests for that many random entities each."""
    chance = random.Random(entities)
    return [chance.sample(range(ENTITIES), entities) for _ in range(count)]


def row(what: str, ours: float, peer: float, goal: float, *, less: bool, times: bool = True) -> dict[str, Any]:
    """One line of the result; with ``times`` the goal is how many times better than the peer, else a limit."""
    ratio = (peer / ours if less else ours / peer) if peer else 0.0
    met = ratio >= goal if times else ours <= goal
    print(
        f"{what:58} ours {ours:10.1f}  Feast {peer:10.1f}  {ratio:6.1f}x  goal {goal:g} {'met' if met else 'MISSED'}",
        flush=True,
    )
    measured = {"what": what, "ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ratio, 1)}
    return {**measured, "goal": goal, "met": met}


def lookups(ours: Noria, feast: Feast, engine: str, goal: float) -> Iterator[dict[str, Any]]:
    for entities, count in ((1, 1000), (100, 50)):
        mine, theirs = [], []
        for _ in range(REPEATS):
            batches = batches_of(entities, count)
            mine.append(median(ours.time(batches)))
            theirs.append(feast.ask(do="time", batches=batches))
        yield row(f"{engine}: lookup µs, {entities} entities", median(mine), median(theirs), goal, less=True)


def materializing(feast: Feast, folder: Path) -> dict[str, Any]:
    """Rows written a second, the newest of each entity found among two."""
    mine, theirs, written = [], [], ENTITIES * len(VIEWS)
    between = [START.timestamp(), END.timestamp()]
    for number in range(3):
        ours = Noria(folder / f"fresh{number}", folder, "sqlite")
        mine.append(written / ours.materialize())
        ours.close()
        theirs.append(written / feast.ask(do="materialize", between=between))
    return row("sqlite: rows materialized a second", median(mine), median(theirs), 10, less=False)


WRITER = """
import os, sys, time
from pathlib import Path
os.sched_setaffinity(0, range(os.cpu_count()))
sys.path.insert(0, sys.argv[1])
import features_online as bench
from noria.features.packing import pack_rows
from noria.store import open_keyvalue
view, size = bench.view_of("profile", Path(sys.argv[2])), 1000
rows = view.load(Path(sys.argv[2]))
store, entries = open_keyvalue(sys.argv[3], Path()), pack_rows(view, rows)
print("ready", flush=True)
began, written = time.perf_counter(), 0
while True:
    start = written % (len(entries) - size)
    store.put_newer(entries[start:start + size])
    written += size
    print(written / (time.perf_counter() - began), flush=True)
    time.sleep(max(0.0, written / bench.WRITTEN_A_SECOND - (time.perf_counter() - began)))
"""


@contextmanager
def writer(data: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that rewrites rows all the time."""
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(data), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
        process.terminate()


def under_writes(ours: Noria, data: Path) -> dict[str, Any]:
    """The 990th of a thousand lookups of 10 entities while another process writes."""
    p99 = []
    with writer(data, ours.url) as process:
        for _ in range(REPEATS):
            p99.append(sorted(ours.time(batches_of(10, 1000)))[989] / 1000)
        process.terminate()
        rate = float((process.stdout or [""]).read().split()[-1])  # type: ignore[union-attr]
    what = f"sqlite: p99 ms, 10 entities, beside {rate:.0f} rows/s written"
    return row(what, median(p99), 0.0, 1, less=True, times=False)


def install_peer() -> None:
    uv = [sys.executable, "-m", "uv"]
    if not (PEER / "bin/feast").exists():
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, PEER], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", PEER / "bin/python", *INSTALL], check=True)


def rows() -> list[dict[str, Any]]:
    """All measures."""
    install_peer()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder)
        feast = Feast(folder, folder)
        found = [materializing(feast, folder)]
        feast.share_processor()
        for engine, goal in (("sqlite", 10), ("lmdb", 20)):
            ours = Noria(folder / engine, folder, engine)
            ours.materialize()
            compare(ours, feast)
            found += lookups(ours, feast, engine, goal)
            if engine == "sqlite":
                found.append(under_writes(ours, folder))
            ours.close()
        feast.close()
    return found


if __name__ == "__main__":
    print(json.dumps({"bench": "features_online", "rows": rows()}))
