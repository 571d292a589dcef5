"""Batch prediction side by side: `noria predict batch`, a plain Polars loop, and Ray Data: `make bench NAME=batch`.

ROWS (2,000,000) rows of 30 doubles and an id in one Parquet file are scored by the same ONNX graph of a logistic
regression and of LightGBM, and written as Parquet. The Polars loop calls the same runtime as we do and is what we may
take 1.3 times as long as, in one process; Ray Data maps batches in actors, in an environment of its own. Each side has
processes of its own and the same number of them; seconds are those from the first read to the last write, and beside
them the whole command's. Every prediction is compared. Prints a line a measure and, last, one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".bench/ray"
SIDES = {
    "ours": [sys.executable, __file__],
    "polars": [sys.executable, __file__],
    "ray": [PEER / "bin/python", ROOT / "benchmarks/peers/ray_batch.py"],
}
ROWS = int(os.environ.get("ROWS", "2000000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
WIDTH, GROUP_ROWS, BATCH_ROWS = 30, 131_072, 65_536
MOST_TIMES_POLARS = 1.3
NAMES = [f"f{place}" for place in range(WIDTH)]


def install_peer() -> None:
    if not (PEER / "bin/ray").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, PEER], check=True)
        needed = ["ray[data]==2.60.*", "onnxruntime"]
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", PEER / "bin/python", *needed], check=True)


def prepare(folder: Path) -> dict[str, dict[str, Any]]:
    """The table, and the two models as they are registered: name → the task's part about it."""
    import polars as pl
    from lightgbm import LGBMClassifier
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    train = random.normal(size=(20_000, WIDTH))
    labels = (train[:, :10].sum(axis=1) + random.normal(size=len(train)) > 0).astype(int)
    models = {
        "logistic regression": LogisticRegression(),
        "LightGBM, 100 trees": LGBMClassifier(n_estimators=100, verbose=-1),
    }
    frame = pl.DataFrame({"id": range(ROWS), **{name: random.normal(size=ROWS) for name in NAMES}})
    frame.write_parquet(folder / "rows.parquet", row_group_size=GROUP_ROWS)
    return {name: registered(folder, name, model.fit(train, labels), train) for name, model in models.items()}


def registered(folder: Path, name: str, model: Any, rows: Any) -> dict[str, Any]:
    from noria.optimize.bundle import ONNX_FILE, Bundle, write_bundle
    from noria.optimize.onnx import convert
    from noria.store.blobs import folder_digest

    key = name.split(" ")[0].rstrip(",")
    target = folder / "artifacts" / key
    target.mkdir(parents=True)
    graph = convert(model, "classification", NAMES, rows[:500], target).graph
    write_bundle(target, Bundle("classification", tuple(NAMES), (), graph.numbers, graph.score, graph.dtype))
    about = {"input": graph.numbers, "score": graph.score, "dtype": graph.dtype, "onnx": str(target / ONNX_FILE)}
    return {"key": key, "digest": folder_digest(target), **about}


def measured(side: str, task: dict[str, Any]) -> tuple[float, float]:
    """Seconds of scoring, and of the whole command."""
    began = time.perf_counter()
    done = subprocess.run(
        [*SIDES[side], json.dumps({**task, "side": side})], capture_output=True, text=True, check=False
    )
    whole = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"]), whole


def compare(folder: Path, name: str, model: dict[str, Any], workers: int) -> Iterator[dict[str, Any]]:
    """The sides of one model in turns, ROUNDS times; then their rows, each against each."""
    sides = ["ours", "ray"] if workers > 1 else list(SIDES)
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    outputs = {side: folder / f"{side}-{model['key']}-{workers}" for side in sides}
    for number in range(ROUNDS):
        for side in sides:
            output = outputs[side].with_name(f"{outputs[side].name}-{number}")
            task = {"folder": str(folder), "output": str(output), "model": model, "workers": workers}
            taken[side].append(measured(side, task))
    wrong = {side: different(outputs["ours"], outputs[side]) for side in sides if side != "ours"}
    mine, mine_whole = (median(one[place] for one in taken["ours"]) for place in (0, 1))
    for side in sides[1:]:
        seconds, whole = (median(one[place] for one in taken[side]) for place in (0, 1))
        row = {
            "measure": f"{name}, {workers} process{'es' * (workers > 1)}, against {side}",
            "ours_rows_per_second": round(ROWS / mine),
            f"{side}_rows_per_second": round(ROWS / seconds),
            "times_as_fast": round(seconds / mine, 2),
            "whole_command_times_as_fast": round(whole / mine_whole, 2),
            "predictions_different": wrong[side],
            "passed": not wrong[side] and (mine <= MOST_TIMES_POLARS * seconds if side == "polars" else mine < seconds),
        }
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        yield row


def different(ours: Path, theirs: Path) -> int:
    """How many ids have another prediction, or a score more than 1e-6 away; the last round's outputs are compared."""
    import polars as pl

    read = [
        pl.read_parquet(f"{place}-{ROUNDS - 1}/*.parquet", columns=["id", "prediction", "score"]).sort("id")
        for place in (ours, theirs)
    ]
    assert all(frame["id"].equals(pl.Series("id", range(ROWS))) for frame in read), "rows are missing or twice there"
    far = (read[0]["score"] - read[1]["score"]).abs() > 1e-6
    return int((far | (read[0]["prediction"] != read[1]["prediction"])).sum())


def ours(task: dict[str, Any]) -> float:
    from noria.rollout.routes import Variant
    from noria.serving.batch import Inputs, ModelFiles, Options, Wishes, run_job

    folder, model = Path(task["folder"]), task["model"]
    variant = Variant("champion", model["key"], 1, model["key"], model["digest"], 100)
    files = ModelFiles(variant, "", folder / "artifacts", folder / "cache")
    rows = max(GROUP_ROWS, ROWS // (4 * task["workers"]))
    source = Inputs(str(folder / "rows.parquet"))
    options = Options(
        source, task["output"], Wishes({}), part_rows=rows, batch_rows=BATCH_ROWS, parallelism=task["workers"]
    )
    return run_job(files, options, f"sqlite:///{folder}/online.db").seconds


def polars(task: dict[str, Any]) -> float:
    """What somebody writes who has the runtime at hand."""
    import polars as pl
    import pyarrow.parquet

    from noria.rollout.routes import Variant
    from noria.serving.runtimes import Rows
    from noria.serving.served import load_served
    from noria.store.blobs import FolderBlobs

    folder, model = Path(task["folder"]), task["model"]
    variant = Variant("champion", model["key"], 1, model["key"], model["digest"], 100)
    served = load_served(FolderBlobs(folder / "artifacts"), variant)
    Path(task["output"]).mkdir()
    began, writer = time.perf_counter(), None
    for frame in pl.scan_parquet(folder / "rows.parquet").collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        scores = served.score(Rows(frame.select(NAMES).to_numpy(order="c")))
        found = frame.select("id").with_columns(
            prediction=pl.Series(scores > 0.5).cast(pl.Int64),
            probability=np.maximum(scores, 1 - scores),
            score=scores,
            model_version=pl.lit("1"),
        )
        table = found.to_arrow()
        writer = writer or pyarrow.parquet.ParquetWriter(
            f"{task['output']}/rows.parquet", table.schema, compression="zstd"
        )
        writer.write_table(table)
    writer.close()
    return time.perf_counter() - began


def main() -> None:
    install_peer()
    with tempfile.TemporaryDirectory() as scratch:
        models = prepare(Path(scratch))
        rows = [
            row
            for name, model in models.items()
            for workers in (1, 2)
            for row in compare(Path(scratch), name, model, workers)
        ]
    print(json.dumps({"bench": "batch", "rows_scored": ROWS, "rows": rows}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        told = json.loads(sys.argv[1])
        print(json.dumps({"seconds": {"ours": ours, "polars": polars}[told["side"]](told)}))
    else:
        main()
