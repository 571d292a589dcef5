"""A server stays awake for clients that come back at once, and sleeps where they do not or have no processor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noria import processors
from noria.surface.http.busy_polling import BusyPolling


class Loop(asyncio.SelectorEventLoop):
    """A loop that counts the turns it was asked for."""

    turns = 0

    def call_soon(self, *given: Any, **more: Any) -> asyncio.Handle:
        self.turns += 1
        return super().call_soon(*given, **more)


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_allowed", lambda: 2)
    monkeypatch.setattr(processors, "_given_time_of", lambda: 2.0)
    monkeypatch.delenv(processors.WORKERS_VARIABLE, raising=False)


def turns(pauses: list[float], *, answers: int = 1) -> int:
    """How often the loop turns by itself after ``answers``, where clients took ``pauses`` seconds before."""
    loop = Loop()

    async def serve() -> int:
        polling, now = BusyPolling(), loop.time() - sum(pauses)
        for pause in pauses:
            polling.answered(now)
            now += pause
            polling.asked(now)
        await asyncio.sleep(0.01)
        loop.turns = 0
        for _ in range(answers):
            polling.answered(loop.time())
        await asyncio.sleep(0.01)
        return loop.turns

    try:
        return loop.run_until_complete(serve())
    finally:
        loop.close()


def test_looks_again_and_again_after_quick_clients() -> None:
    assert turns([0.00005] * 50) > 5


def test_sleeps_after_slow_clients_and_without_any() -> None:
    idle = turns([])
    assert turns([0.01] * 50) == idle
    assert turns([0.00005] * 50 + [0.01] * 20) == idle


def test_answers_share_one_look() -> None:
    assert turns([0.00005] * 50, answers=500) < 500


def test_leaves_the_only_processor_to_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processors.WORKERS_VARIABLE, "2")
    assert turns([0.00005] * 50) == turns([])


def test_processors_are_those_a_container_is_given_time_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_allowed", lambda: 64)
    monkeypatch.setattr(processors, "_given_time_of", lambda: 2.5)
    assert processors.processors() == 2
    monkeypatch.setattr(processors, "_given_time_of", lambda: 0.5)
    assert processors.processors() == 1
