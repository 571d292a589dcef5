"""The point-in-time join against Feast's DuckDB store: time, memory and every single cell.

Three views of 1, 5 and 10 million rows, 14 features of 100,000 entities, TTLs of 30 days, 2 days and none; 2% of the
rows tie on their event time, 1% are created late, 3% of the values are null. Each measure has its own process, which
is told a task as JSON; both sides answer as the known-then join that leaves out what was created later.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
SIDES = {"ours": __file__, "peer": ROOT / "benchmarks/peers/feast_join.py"}
EPOCH, DAYS = datetime(2025, 1, 1), 180
ENTITIES = 100_000
SIZES = {10_000: 1.2, 100_000: 2.0, 1_000_000: 7.0}
"""How many rows an entity frame has, and how many times faster than Feast the join is to be."""
REPEATS, SAMPLE = 3, 300
SORTED_REPEATS = 7
"""Joins of sorted files take a second; the first of a process is the slowest."""
MOST_MEGABYTES, MOST_SCANS, MOST_IMPORT_SECONDS = 2000, 3.0, 0.3
VIEWS = [("day", 1_000_000, 4, 30), ("hour", 5_000_000, 5, 2), ("ever", 10_000_000, 5, None)]


@dataclass(frozen=True)
class Files:
    """One kind of keys: where its views and entity frames are, and what a task says of them."""

    folder: Path
    keys: str
    scale: float

    def events(self, size: int) -> Path:
        return self.folder / f"events-{self.keys}-{size}.parquet"

    def view(self, name: str, layout: str = "") -> Path:
        return self.folder / f"{name}-{self.keys}{layout}.parquet"

    def task(self, size: int, result: str, layout: str = "", repeats: int = REPEATS) -> dict[str, Any]:
        views = [
            {"name": name, "path": str(self.view(name, layout)), "ttl_days": ttl, "fields": fields_of(count)}
            for name, _, count, ttl in VIEWS
        ]
        paths = {"folder": str(self.folder), "events": str(self.events(size)), "result": str(self.folder / result)}
        return {"do": "join", "keys": self.keys, "views": views, "repeats": repeats, **paths}


def fields_of(count: int) -> list[tuple[str, str]]:
    return [(f"f{i}", "Int64" if i % 2 else "Float64") for i in range(count)]


def write_files(files: Files) -> None:
    """Views in the order their rows were created, as a log has them; and entity frames, a tenth of it unknown ones."""
    import numpy as np
    import polars as pl

    random, entities = np.random.default_rng(1), round(ENTITIES * files.scale)
    named = pl.col("driver_id") if files.keys == "integer" else pl.format("driver-{}", "driver_id")
    for name, rows, count, _ in VIEWS:
        write_view(random, round(rows * files.scale), count, entities).with_columns(driver_id=named).write_parquet(
            files.view(name)
        )
    for size in SIZES:
        rows = round(size * files.scale)
        seconds = random.integers(30 * 86_400, DAYS * 86_400, rows)
        pl.DataFrame({"row": np.arange(rows), "driver_id": random.integers(0, entities * 11 // 10, rows)}).with_columns(
            named.alias("driver_id"),
            (pl.lit(EPOCH) + pl.duration(seconds=seconds)).dt.replace_time_zone("UTC").alias("event_timestamp"),
        ).write_parquet(files.events(size))


def write_view(random: Any, rows: int, fields: int, entities: int) -> Any:
    import polars as pl

    keys, event = random.integers(0, entities, rows), random.integers(0, DAYS * 86_400, rows) * 1_000_000
    ties = random.choice(rows, rows // 50, replace=False)
    originals = random.integers(0, rows, len(ties))
    keys[ties], event[ties] = keys[originals], event[originals]
    created = event + random.integers(0, 60_000_000, rows)
    late = random.choice(rows, rows // 100, replace=False)
    created[late] += random.integers(0, 3 * 86_400, len(late)) * 1_000_000
    columns = {
        name: random.normal(size=rows) if kind == "Float64" else random.integers(0, 1000, rows)
        for name, kind in fields_of(fields)
    }
    frame = pl.DataFrame({"driver_id": keys, "event_timestamp": event, "created_timestamp": created, **columns})
    return frame.select(
        "driver_id",
        *(
            (pl.lit(EPOCH) + pl.duration(microseconds=name)).dt.replace_time_zone("UTC").alias(name)
            for name in ("event_timestamp", "created_timestamp")
        ),
        *(pl.when(pl.Series(random.random(rows) > 0.03)).then(name).alias(name) for name in columns),
    ).sort("created_timestamp")


def told(python: Path | str, side: str, task: dict[str, Any]) -> dict[str, Any]:
    """What a fresh process answers to a task."""
    command = [str(python), "-W", "ignore", str(SIDES[side]), json.dumps(task)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"{side} failed:\n{answer.stderr[-4000:]}")
    return json.loads(answer.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def row(what: str, ours: float, peer: float, goal: float, met: bool, ratio: float) -> dict[str, Any]:
    print(
        f"{what:58} ours {ours:9.2f}  peer {peer:9.2f}  {ratio:6.2f}x  goal {goal:g} {'met' if met else 'MISSED'}",
        flush=True,
    )
    return {
        "what": what,
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "ratio": round(ratio, 2),
        "goal": goal,
        "met": met,
    }


def join_rows(peer: Path, scale: float) -> Iterator[dict[str, Any]]:
    """All measures of the join; ``peer`` is the Python that has Feast."""
    seconds = median(told(sys.executable, "ours", {"do": "import"})["seconds"] for _ in range(5))
    yield row(
        "join: seconds to import noria.features", seconds, 0, MOST_IMPORT_SECONDS, seconds < MOST_IMPORT_SECONDS, 0
    )
    for keys in ("integer", "string"):
        with tempfile.TemporaryDirectory() as scratch:
            files = Files(Path(scratch), keys, scale)
            told(sys.executable, "ours", {"do": "write", "folder": scratch, "keys": keys, "scale": scale})
            for size, goal in SIZES.items():
                yield from compared(files, peer, size, goal)
            yield from against_loops(files)
            if keys == "integer":
                yield from sorted_rows(files)


def compared(files: Files, peer: Path, size: int, goal: float) -> Iterator[dict[str, Any]]:
    what = f"join: {files.keys} keys, {round(size * files.scale):,} events"
    ours = told(sys.executable, "ours", files.task(size, f"ours-{size}.parquet"))
    theirs = told(peer, "peer", files.task(size, "theirs.parquet", repeats=1 if size == max(SIZES) else REPEATS))
    mine, other = median(ours["seconds"]), median(theirs["seconds"])
    yield row(f"{what}, seconds", mine, other, goal, other / mine >= goal, other / mine)
    used = [side["peak_bytes"] / 2**20 for side in (ours, theirs)]
    yield row(f"{what}, MB at peak", *used, MOST_MEGABYTES, used[0] <= MOST_MEGABYTES, used[1] / used[0])
    wrong = different(files.folder / f"ours-{size}.parquet", files.folder / "theirs.parquet")
    yield row(f"{what}, cells different from Feast's", wrong, 0, 0, wrong == 0, 0)


def different(ours: Path, theirs: Path) -> int:
    """How many cells differ; Feast gives the rows in another order, so each has a number."""
    import polars as pl

    mine, other = pl.read_parquet(ours).sort("row"), pl.read_parquet(theirs).sort("row")
    assert mine["row"].equals(other["row"]), "Feast lost rows"
    names = [name for name in mine.columns if "__" in name]
    return sum(int(mine[name].ne_missing(other[name].cast(mine[name].dtype)).sum()) for name in names)


def against_loops(files: Files) -> Iterator[dict[str, Any]]:
    """A sample of the largest result against the tests' oracle, row by row."""
    import polars as pl

    sys.path.insert(0, str(ROOT / "tests/features"))
    from oracle import newest

    joined = pl.read_parquet(files.folder / f"ours-{max(SIZES)}.parquet").sample(SAMPLE, seed=1)
    wrong = 0
    for name, _, count, ttl in VIEWS:
        known = pl.scan_parquet(files.view(name)).filter(pl.col("driver_id").is_in(joined["driver_id"].implode()))
        rows = {key: group.to_dicts() for (key,), group in known.collect().group_by("driver_id", maintain_order=True)}
        for event in joined.iter_rows(named=True):
            key, at = event["driver_id"], event["event_timestamp"]
            best = newest(rows.get(key, []), {"driver_id": key}, at, ttl=None if ttl is None else timedelta(days=ttl))
            wrong += sum((best and best[one]) != event[f"{name}__{one}"] for one, _ in fields_of(count))
    what = f"join: {files.keys} keys, cells of {SAMPLE} events different from loops"
    yield row(what, wrong, 0, 0, wrong == 0, 0)


def sorted_rows(files: Files) -> Iterator[dict[str, Any]]:
    """Files of ``write_sorted`` against reading their needed columns and nothing more, in the same batches."""
    told(sys.executable, "ours", {**files.task(max(SIZES), ""), "do": "sort"})
    for size in SIZES:
        task = files.task(size, f"sorted-{size}.parquet", "-sorted", SORTED_REPEATS)
        found, scan = told(sys.executable, "ours", task), told(sys.executable, "ours", {**task, "do": "scan"})
        mine, bare = median(found["seconds"]), median(scan["seconds"])
        what = f"join: sorted files, {round(size * files.scale):,} events"
        yield row(
            f"{what}, seconds (peer: a bare scan)", mine, bare, MOST_SCANS, mine <= MOST_SCANS * bare, mine / bare
        )
        wrong = different(files.folder / f"sorted-{size}.parquet", files.folder / f"ours-{size}.parquet")
        yield row(f"{what}, cells different from unsorted", wrong, 0, 0, wrong == 0, 0)


def views_of(task: dict[str, Any]) -> list[Any]:
    from noria.features import Entity, FeatureView, Field, FileSource
    from noria.features.types import parse_type

    driver = Entity(name="driver", join_keys=["driver_id"])
    return [
        FeatureView(
            name=one["name"],
            entities=[driver],
            ttl=None if one["ttl_days"] is None else timedelta(days=one["ttl_days"]),
            schema=[Field(name=name, dtype=parse_type(kind)) for name, kind in one["fields"]],
            source=FileSource(
                path=one["path"], timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
            ),
        )
        for one in task["views"]
    ]


def join(task: dict[str, Any]) -> dict[str, Any]:
    import polars as pl

    from noria.features import join_as_of

    views, events, seconds = views_of(task), pl.read_parquet(task["events"]), []
    for _ in range(task["repeats"]):
        began = time.perf_counter()
        found = join_as_of(events, views, event_time="event_timestamp")
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found.write_parquet(task["result"])
    return {"seconds": seconds, "peak_bytes": peak}


def scan(task: dict[str, Any]) -> dict[str, Any]:
    import polars as pl

    seconds = []
    for _ in range(task["repeats"]):
        began = time.perf_counter()
        for one in task["views"]:
            for batch in pl.scan_parquet(one["path"]).collect_batches(chunk_size=500_000, engine="streaming"):
                assert batch.height
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def sort(task: dict[str, Any]) -> dict[str, Any]:
    from noria.features.layout import write_sorted

    for view in views_of(task):
        path = Path(view.source.path)
        write_sorted(view, Path(), path.with_name(f"{path.stem}-sorted.parquet"))
    return {}


def write(task: dict[str, Any]) -> dict[str, Any]:
    write_files(Files(Path(task["folder"]), task["keys"], task["scale"]))
    return {}


def import_features(_task: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    import noria.features  # noqa: F401  it is the import that is measured

    return {"seconds": time.perf_counter() - began}


TASKS = {"join": join, "scan": scan, "sort": sort, "write": write, "import": import_features}

if __name__ == "__main__":
    told_task = json.loads(sys.argv[1])
    print(json.dumps(TASKS[told_task["do"]](told_task)))
