"""Requests whose time is over while a model that is not in the event loop's hands works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

import pytest

from noria.errors import DeadlineExceeded
from noria.monitoring.log import read_predictions
from noria.rollout.routes import RouteTable
from noria.serving import DataPlane, PredictionRequest
from noria.serving.batcher import Batcher
from serving.gateway_world import LAST_SEEN, World
from serving.slow_runtime import HeldModels

SOON = 0.5
"""Seconds: long enough for the call to begin on a busy machine."""


class Asked:
    """A data plane that serves a model which answers when it is let."""

    def __init__(self, world: World, held: HeldModels) -> None:
        settings = world.settings
        self._held, self._variant = held, held.add(1, "answers")
        self._log = settings.prediction_log
        self.plane = DataPlane(settings.artifacts, settings.online_store, self._log)

    async def __aenter__(self) -> Asked:
        await self.plane.swap(RouteTable("held", 1, (self._variant,), "test", LAST_SEEN))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._held.let_go()
        self.plane.close()

    @property
    def batcher(self) -> Batcher:
        return self.plane.find().champion.batcher

    def ask(self, name: str, timeout: float | None = None) -> Awaitable[object]:
        request = PredictionRequest(features={"a": 1.0}, prediction_id=name)
        return asyncio.ensure_future(self.plane.predict(self.plane.find(), request, timeout))

    async def scoring(self) -> IO[bytes]:
        """What holds the model up, once it works."""
        return await self._held.reached(1, "answers")

    @property
    def seconds(self) -> dict[str, float]:
        """What each answer took, by the log."""
        return {record.prediction_id: record.latency_seconds for record in read_predictions(self._log)}

    @property
    def logged(self) -> list[str]:
        return list(self.seconds)


@pytest.fixture
def asked(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(world, HeldModels(tmp_path, monkeypatch))


def within(asked: Asked, steps: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asked, asyncio.timeout(20):
            await steps()

    asyncio.run(run())


def test_a_request_is_refused_at_its_deadline_while_the_model_works_on_and_is_not_logged(asked):
    async def steps() -> None:
        late = asked.ask("late", SOON)
        scoring = await asked.scoring()
        with pytest.raises(DeadlineExceeded, match="held@1 did not answer before the deadline"):
            await late
        assert asked.batcher.rows == 1  # the model still has it
        scoring.close()
        while asked.batcher.rows:  # until the call has ended: the next one waits at the same pipe
            await asyncio.sleep(0.01)
        timely = asked.ask("timely")
        (await asked.scoring()).close()
        await timely
        assert (asked.batcher.rows, asked.logged) == (0, ["timely"])

    within(asked, steps)


def test_one_that_waits_behind_a_long_call_is_refused_at_its_own_deadline(asked):
    async def steps() -> None:
        first = asked.ask("first")
        scoring = await asked.scoring()
        with pytest.raises(DeadlineExceeded):
            await asked.ask("behind", SOON)
        assert asked.batcher.rows == 1
        scoring.close()
        await first
        assert (asked.batcher.rows, asked.logged) == (0, ["first"])
        assert asked.seconds["first"] > SOON  # while the other waited

    within(asked, steps)


def test_of_rows_that_are_scored_together_those_that_are_not_late_are_answered_and_logged(asked):
    async def steps() -> None:
        one, late, other = asked.ask("one"), asked.ask("late", SOON), asked.ask("other", 10)
        scoring = await asked.scoring()
        with pytest.raises(DeadlineExceeded):
            await late
        scoring.close()
        assert [answer.prediction for answer in await asyncio.gather(one, other)] == [1.0, 1.0]
        assert (asked.batcher.rows, asked.logged) == (0, ["one", "other"])

    within(asked, steps)


def test_a_version_that_is_replaced_is_unloaded_once_its_last_call_ends(asked):
    async def steps() -> None:
        late = asked.ask("late", SOON)
        scoring, batcher = await asked.scoring(), asked.batcher
        with pytest.raises(DeadlineExceeded):
            await late
        asked.plane.withdraw("held")
        scoring.close()
        while batcher.rows:
            await asyncio.sleep(0.001)
        assert asked.logged == []

    within(asked, steps)


def test_the_end_does_not_wait_for_a_call_that_hangs(asked):
    async def ended() -> bool:
        unloaded = asyncio.Event()
        async with asked:
            answer = asked.ask("hangs")
            held = await asked.scoring()
            asked.batcher.served.runtime.unload = unloaded.set
            asked.plane.close()
            found = unloaded.is_set()
            held.close()
            await answer
        return found

    assert asyncio.run(ended())
