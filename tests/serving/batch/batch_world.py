"""Tables to score and a model for them; jobs run here, or in a process that can be killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from noria.serving.batch import Inputs, ModelFiles, Options, Summary, Wishes, run_job
from serving.gateway_world import World

_RUN = "import pickle, sys; from noria.serving.batch import run_job; run_job(*pickle.load(sys.stdin.buffer))"


class BatchWorld:
    """A world with one model of the inputs distance and hour, and a table with an id for each of its rows."""

    def __init__(self, world: World, *, views: bool = False, task: Any = "classification") -> None:
        self.world = world
        self.folder = world.root
        variant = world.add_model(3, task, views=views)
        self.model = ModelFiles(variant, "", world.root / "artifacts", world.root / "cache")

    def table(self, rows: int = 1000) -> pl.DataFrame:
        """Rows to score."""
        random = np.random.default_rng(rows)
        return pl.DataFrame(
            {
                "id": range(rows),
                "name": [f"row, {n}\n" if n % 7 == 0 else f'r"{n}"' for n in range(rows)],
                "distance": random.normal(size=rows) * 500,
                "hour": random.integers(0, 24, rows).astype(float),
            }
        )

    def run(self, source: str | Path, output: str | Path, **more: Any) -> Summary:
        """Do a job."""
        return run_job(*self.asked(source, output, **more))

    def start(self, source: str | Path, output: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        """Do a job in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(self.asked(source, output, **more)))
        process.stdin.close()
        process.stdin = None  # or communicate would use it
        return process

    def asked(self, source: str | Path, output: str | Path, **more: Any) -> tuple[Any, ...]:
        """What ``run_job`` takes."""
        inputs = {name: more.pop(name) for name in ("query", "key", "texts") if name in more}
        if "input_format" in more:
            inputs["format"] = more.pop("input_format")
        wishes = {name: more.pop(name) for name in ("renamed", "keep", "as_of", "with_ids") if name in more}
        options = Options(Inputs(str(source), **inputs), str(output), Wishes(**{"renamed": {}} | wishes), **more)
        return self.model, options, self.world.settings.online_store

    def expected(self, table: pl.DataFrame) -> np.ndarray:
        """The scores of the table's rows."""
        from noria.serving.runtimes import Rows

        return self.model.load().score(Rows(table.select("distance", "hour").to_numpy()))


def killed_until_done(start: Any, delays: list[float]) -> int:
    """Kill the job, with all its processes, after each of the delays; then let it end. How often it was killed."""
    killed = 0
    for delay in delays:
        process = start()
        time.sleep(delay)
        killed += process.poll() is None
        with suppress(ProcessLookupError):  # it may have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
    process = start()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return killed
