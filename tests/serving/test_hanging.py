"""Models in processes of their own that hang, or are slow: whose place is given up, when, and who is told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noria.errors import DeadlineExceeded
from noria.monitoring.log import FAILURES, SHADOWS, FailureRecord, read_predictions, read_records
from noria.optimize.bundle import Bundle, write_bundle
from noria.rollout.routes import RouteTable, Variant
from noria.serving import Block, DataPlane, Limits, PredictionRequest
from noria.serving.runtimes import Rows
from noria.serving.runtimes.process import ModelProcesses
from noria.store.blobs import FolderBlobs, folder_digest
from serving.gateway_world import LAST_SEEN

HANGS = 1e6
CODE = """
import os, threading

def postprocess(answers, columns):
    seconds = max(columns["seconds"])
    if seconds > 0:
        threading.Event().wait(seconds)
    return [os.getpid()] * len(answers)
"""

HANGING = """
import threading

def postprocess(answers, columns):
    threading.Event().wait()
"""
SHORT = """
def postprocess(answers, columns):
    return [1.0] * (len(answers) - 1)
"""


class Waits:
    """A third party's runtime: its process answers with its own id once the longest wait of a row is over."""

    inline, concurrency = False, 1

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        del bundle
        command = ["transformer", str(folder / "code.py")]
        self._processes = ModelProcesses(Path(sys.executable), command, "the model")

    def score(self, rows: Rows):
        columns = {"seconds": rows.numbers[:, 0]}
        return np.array(self._processes.ask("postprocess", columns, answers=[None] * len(rows)), dtype=np.float64)

    def unload(self) -> None:
        self._processes.stop()


class Waiting:
    """A data plane that serves such a model."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "log"
        self.variant = self.add("waits", CODE)
        limits = Limits(timeout_seconds=0.3)
        self.plane = DataPlane(
            FolderBlobs(root / "artifacts"), f"sqlite:///{root}/online.db", self.log, lambda _: limits
        )

    def add(self, name: str, code: str) -> Variant:
        """A model of that code, as a champion."""
        folder = self.root / "artifacts" / name
        folder.mkdir(parents=True)
        (folder / "code.py").write_text(code)
        write_bundle(folder, Bundle("regression", ("seconds",), runtime="waits"))
        return Variant("champion", "model", 1, name, folder_digest(folder), 100.0)

    async def ask(self, seconds: float, timeout: float) -> float:
        """The id of the process that answered."""
        request = PredictionRequest(features={"seconds": float(seconds)})
        return (await self.plane.predict(self.plane.find(), request, timeout)).prediction

    @property
    def metrics(self) -> str:
        return self.plane.metrics.render().decode()


@pytest.fixture
def within(tmp_path, monkeypatch) -> Callable[..., None]:
    """Has steps done with a data plane that serves the model, and ``more`` variants of it."""
    monkeypatch.setattr("noria.serving.runtimes._entry_point", lambda _: Waits)

    def run(steps: Callable[[Waiting], Awaitable[None]], *more: Callable[[Waiting], Variant]) -> None:
        async def all_steps() -> None:
            waiting = Waiting(tmp_path)
            variants = [waiting.variant, *(make(waiting) for make in more)]
            await waiting.plane.swap(RouteTable("model", 1, variants, "test", LAST_SEEN))
            try:
                async with asyncio.timeout(60):
                    await steps(waiting)
            finally:
                waiting.plane.close()

        asyncio.run(all_steps())

    return run


def test_a_call_that_hangs_gives_its_place_up_and_that_is_told_until_the_model_answers(within):
    async def steps(waiting: Waiting) -> None:
        before = await waiting.ask(0, 10)
        for times in (1, 2):
            with pytest.raises(DeadlineExceeded, match="model@1 did not answer before the deadline"):
                await waiting.ask(HANGS, 0.3)
            while waiting.plane.find().champion.batcher.rows:
                await asyncio.sleep(0.01)
            fault = waiting.plane.fault
            assert fault is not None and "the process of model@1 did not answer" in fault.message
            assert f'model_calls_hung_total{{model_name="model",model_version="1"}} {times}.0' in waiting.metrics
        assert await waiting.ask(0, 0.5) != before  # begun anew already: nobody waits for its start
        assert waiting.plane.fault is None

    within(steps)


def test_all_that_were_asked_together_with_a_row_that_hangs_are_refused_at_their_deadlines(within):
    async def steps(waiting: Waiting) -> None:
        asked = [waiting.ask(0 if place else HANGS, 0.3 + place / 10) for place in range(5)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DeadlineExceeded] * 5
        assert await waiting.ask(0, 10) > 0
        assert waiting.plane.find().champion.batcher.rows == 0

    within(steps)


def test_a_model_that_is_late_by_less_than_its_start_takes_goes_on(within):
    async def steps(waiting: Waiting) -> None:
        before = await waiting.ask(0, 10)
        with pytest.raises(DeadlineExceeded):
            await waiting.ask(0.6, 0.1)
        assert await waiting.ask(0, 10) == before
        assert "model_calls_hung_total{" not in waiting.metrics

    within(steps)


def test_a_model_that_answers_before_a_deadline_later_than_the_deployments_goes_on(within):
    async def steps(waiting: Waiting) -> None:
        before = await waiting.ask(0, 10)
        assert await waiting.ask(3, 20) == before

    within(steps)


def test_a_shadow_that_hangs_gives_its_place_up_and_the_log_says_so(within):
    async def steps(waiting: Waiting) -> None:
        await waiting.ask(0, 10)
        (shadow,) = waiting.plane.find().shadows
        while shadow.waiting:
            await asyncio.sleep(0.01)
        failed = read_records(waiting.log, FAILURES, FailureRecord)
        assert [(one.variant, one.code, one.requests) for one in failed] == [("shadow", "failed", 1)]

    within(steps, lambda waiting: replace(waiting.add("hangs", HANGING), name="shadow", version=2, shadow=True))


def test_a_shadow_that_answers_too_few_rows_fails_and_nothing_is_logged_for_it(within):
    async def steps(waiting: Waiting) -> None:
        await waiting.plane.predict_block(waiting.plane.find(), Block(np.zeros((3, 1)), prediction_id="b"), timeout=10)
        (shadow,) = waiting.plane.find().shadows
        while shadow.waiting:
            await asyncio.sleep(0.01)
        failed = read_records(waiting.log, FAILURES, FailureRecord)
        assert [(one.variant, one.code, one.requests) for one in failed] == [("shadow", "failed", 3)]
        assert not list(read_predictions(waiting.log, kind=SHADOWS))

    within(steps, lambda waiting: replace(waiting.add("short", SHORT), name="shadow", version=2, shadow=True))
