"""Shadows get copies of what was answered, and say in the log what they would have answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from noria.monitoring.log import FAILURES, SHADOWS, FailureRecord, PredictionRecord, read_predictions, read_records
from noria.rollout.routes import RouteTable, Variant
from noria.serving import Block, DataPlane, PredictionRequest
from noria.serving.runtimes import Rows
from noria.serving.served import Served
from serving.gateway_world import LAST_SEEN, REQUEST, World, new_world

SAME_DAY = ("2013-03-01T12:30:00Z",)
DAYS = (*SAME_DAY, "2013-03-01T23:59:59Z", "2013-03-02T00:10:00Z")


def request(number: int, times: Sequence[str] = SAME_DAY) -> PredictionRequest:
    changes = {
        "prediction_id": f"p{number}",
        "event_time": times[number % len(times)],
        "features": {"distance": float(number), "hour": 1.0},
        "unit_id": f"u{number}" if number % 4 else "",
    }
    return msgspec.convert(REQUEST | changes, PredictionRequest)


def logged(world: World, kind: str = "predictions") -> dict[str, PredictionRecord]:
    return {record.prediction_id: record for record in read_predictions(world.settings.prediction_log, kind=kind)}


def serve(world: World, variants: list[Variant], ask: Callable[[DataPlane], Awaitable[None]]) -> DataPlane:
    """Let ``ask`` have its answers, and the shadows the time to score."""

    async def run() -> DataPlane:
        settings = world.settings
        plane = DataPlane(settings.artifacts, settings.online_store, settings.prediction_log)
        await plane.swap(RouteTable("flights", 1, tuple(variants), "test", LAST_SEEN))
        await ask(plane)
        deadline = time.monotonic() + 20
        while any(shadow.waiting for shadow in plane.find().shadows) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        plane.close()
        return plane

    return asyncio.run(run())


def arms(world: World, percent: float, *, views: bool = False) -> list[Variant]:
    """Two versions that answer, with ``views`` where that is said, and a shadow without."""
    shadow = replace(world.add_model(3, views=False), name="shadow", percent=percent, shadow=True)
    champion, challenger = (world.add_model(version, views=views) for version in (1, 2))
    return [replace(champion, percent=70.0), replace(challenger, name="challenger", percent=30.0), shadow]


@pytest.mark.parametrize("percent", [100.0, 40.0])
def test_a_shadow_is_logged_with_what_was_asked_and_what_it_would_have_said(world, tmp_path, percent):
    async def ask(plane: DataPlane) -> None:
        live = plane.find()
        for start in range(0, 600, 60):  # several ticks, so that several batches of two arms come together
            await asyncio.gather(*(plane.predict(live, request(number, DAYS)) for number in range(start, start + 60)))

    variants = arms(world, percent)
    plane = serve(world, variants, ask)
    answered, shadowed = logged(world), logged(world, SHADOWS)
    assert len(answered) == 600 and shadowed.keys() <= answered.keys()
    assert len(shadowed) == 600 if percent == 100 else 150 < len(shadowed) < 330
    for name, record in shadowed.items():
        told, version = answered[name], (record.variant, record.version)
        same = ("event_time", "entities", "features", "unit", "deployment", "revision")
        assert [getattr(record, one) for one in same] == [getattr(told, one) for one in same]
        assert version == ("shadow", 3) and record.latency_seconds > 0
    assert plane.recorder.fault is None
    other = new_world(tmp_path / "alone")
    serve(other, [other.add_model(3, views=False)], ask)
    alone = logged(other)
    assert all(record.score == pytest.approx(alone[name].score) for name, record in shadowed.items())
    assert all(record.prediction == alone[name].prediction for name, record in shadowed.items())


def test_a_day_of_which_a_shadow_gets_no_row_has_none_of_it(world):
    async def ask(plane: DataPlane) -> None:
        for start in range(0, 120, 3):  # one row a day in each batch
            await asyncio.gather(*(plane.predict(plane.find(), request(n, DAYS[1:])) for n in range(start, start + 2)))
            await asyncio.sleep(0.06)  # longer than copies wait for others

    champion, _, shadow = arms(world, 40.0)
    serve(world, [replace(champion, percent=100.0), shadow], ask)
    shadowed, answered = logged(world, SHADOWS), logged(world)
    assert len(answered) == 80 and 10 < len(shadowed) < 60
    assert all(answered[name].event_time == record.event_time for name, record in shadowed.items())


def test_a_shadow_of_other_inputs_is_given_what_the_request_said(world):
    async def ask(plane: DataPlane) -> None:
        await asyncio.gather(*(plane.predict(plane.find(), request(number)) for number in range(20)))

    serve(world, arms(world, 100.0, views=True), ask)
    shadowed = logged(world, SHADOWS)
    assert len(shadowed) == 20
    assert {tuple(record.features) for record in shadowed.values()} == {(float(n), 1.0) for n in range(20)}


def test_blocks_of_rows_are_shadowed_one_by_one(world):
    numbers = np.arange(400.0).reshape(200, 2)

    async def ask(plane: DataPlane) -> None:
        blocks = [Block(numbers[start : start + 50], prediction_id=f"b{start}") for start in range(0, 200, 50)]
        await asyncio.gather(*(plane.predict_block(plane.find(), block) for block in blocks))

    serve(world, arms(world, 100.0), ask)
    answered, shadowed = logged(world), logged(world, SHADOWS)
    assert shadowed.keys() == answered.keys() and len(shadowed) == 200
    assert all(shadowed[name].features == answered[name].features for name in answered)


def not_shadowed(world: World) -> list[tuple[str, str, int]]:
    found = read_records(world.settings.prediction_log, FAILURES, FailureRecord)
    return [(one.variant, one.code, one.requests) for one in found]


def test_a_request_that_a_shadow_fails_costs_no_other_its_score_and_is_logged(world, monkeypatch):
    score = Served.score

    def fails_at_thirteen(served: Served, rows: Rows) -> object:
        if served.label.endswith("3") and (rows.numbers[:, 0] == 13).any():
            raise ValueError("thirteen")
        return score(served, rows)

    async def ask(plane: DataPlane) -> None:
        await asyncio.gather(*(plane.predict(plane.find(), request(number)) for number in range(60)))

    monkeypatch.setattr(Served, "score", fails_at_thirteen)
    serve(world, arms(world, 100.0), ask)
    assert logged(world, SHADOWS).keys() == logged(world).keys() - {"p13"}
    assert not_shadowed(world) == [("shadow", "failed", 1)]


def test_what_a_shadow_that_is_behind_was_not_asked_is_logged(world, monkeypatch):
    monkeypatch.setattr("noria.serving.shadow._LONGEST_QUEUE_ROWS", 100)

    async def ask(plane: DataPlane) -> None:
        for rows in (150, 50):
            await plane.predict_block(plane.find(), Block(np.ones((rows, 2)), prediction_id=f"b{rows}"))
            await asyncio.sleep(0.2)

    serve(world, arms(world, 100.0), ask)
    assert len(logged(world, SHADOWS)) == 50
    assert not_shadowed(world) == [("shadow", "dropped", 150)]
