"""The data plane in process: batches, the log, swaps."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from noria.errors import InvalidInput, NotFound, Overloaded, Unavailable
from noria.monitoring.log import REWARDS, RewardRecord, read_predictions, read_records
from noria.rollout.routes import RouteTable
from noria.serving import Block, DataPlane, Limits, PredictionRequest
from noria.serving.inputs import parse_instant
from noria.serving.items import confidence
from noria.surface.http import native
from noria.surface.http.gateway_bodies import decode_rewards
from noria.surface.http.gateway_requests import Request
from serving.gateway_world import CARRIER, LAST_SEEN, REQUEST, WEATHER, World


def plane_of(world: World) -> DataPlane:
    settings = world.settings
    return DataPlane(settings.artifacts, settings.online_store, settings.prediction_log)


def table(revision: int, *variants: object) -> RouteTable:
    return RouteTable("flights", revision, tuple(variants), "test", LAST_SEEN)


def request(**changes: object) -> PredictionRequest:
    return msgspec.convert(REQUEST | changes, PredictionRequest)


def run(world: World, variant: object, *requests: PredictionRequest) -> list[object]:
    async def answers() -> list[object]:
        plane = plane_of(world)
        await plane.swap(table(1, variant))
        got = await asyncio.gather(*(plane.predict(plane.find(), one) for one in requests), return_exceptions=True)
        plane.close()
        return list(got)

    return asyncio.run(answers())


def segments(world: World) -> list[Path]:
    return sorted(world.settings.prediction_log.glob("predictions/*/*.log"))


def test_a_bad_row_harms_no_other_row_of_its_tick(world):
    bad = request(features={"distance": 1})
    good, refused, stranger, last = run(
        world, world.add_model(1), request(), bad, request(entities={"carrier": "??", "origin": "EWR"}), request()
    )
    assert isinstance(refused, InvalidInput) and "'hour' is missing" in refused.message
    assert isinstance(stranger, NotFound)
    assert good.probability == last.probability


def test_a_request_is_taken_on_as_a_whole_and_one_that_comes_alone_always(world):
    async def answers() -> list[object]:
        settings = world.settings
        plane = DataPlane(
            settings.artifacts, settings.online_store, settings.prediction_log, lambda _: Limits(queue_rows=50)
        )
        await plane.swap(table(1, world.add_model(1)))
        live = plane.find()
        alone = await plane.predict_many(live, [request()] * 60)
        requests = [[request()] * 30, [request()] * 21, [request()] * 20, [request()]]
        got = await asyncio.gather(*(plane.predict_many(live, one) for one in requests), return_exceptions=True)
        after = await plane.predict_many(live, [request()] * 60)
        plane.close()
        return [len(alone), len(after), *(one if isinstance(one, Exception) else len(one) for one in got)]

    alone, after, first, refused, second, last = asyncio.run(answers())
    assert (alone, after, first, second) == (60, 60, 30, 20)
    assert isinstance(refused, Overloaded) and refused.retry_after >= 1 and "30 rows waiting" in refused.message
    assert isinstance(last, Overloaded)


def test_a_row_the_model_gives_no_number_for_is_refused_alone_and_not_logged(world):
    nothing = request(features={"distance": None, "hour": 1}, prediction_id="empty")
    refused, good = run(world, world.add_model(1), nothing, request(prediction_id="full"))
    assert isinstance(refused, InvalidInput) and "gives no number without distance" in refused.message
    assert good.prediction in (0, 1)
    assert [record.prediction_id for record in read_predictions(world.settings.prediction_log)] == ["full"]


def test_what_was_answered_is_in_the_log_with_its_vector(world):
    (answer,) = run(world, world.add_model(1), request(prediction_id="a", features={"distance": True, "hour": 2}))
    (record,) = read_predictions(world.settings.prediction_log)
    assert record.features == [1.0, 2.0, 0.2, 7.5, 11.0]
    assert (record.prediction, record.score) == (answer.prediction, answer.score)
    assert (record.revision, record.variant, record.model, record.version) == (1, "champion", "flights", 1)


def test_a_value_older_than_its_ttl_is_unknown(world):
    (refused,) = run(world, world.add_model(2), request(event_time="2013-03-01T14:00:00Z"))
    assert "without weather__wind" in refused.message


def test_what_lies_in_redis_is_looked_up_beside_the_loop_and_its_absence_is_told(world, redis_server):
    distant = World(world.root, redis_server.url)
    for spec, rows in ((CARRIER, {"UA": [0.2, 7.5]}), (WEATHER, {"EWR": [11.0]})):
        distant.materialize(spec, rows)
    variant = distant.add_model(1)

    async def answers() -> tuple[object, ...]:
        plane = plane_of(distant)
        await plane.swap(table(1, variant))
        one = await plane.predict(plane.find(), request())
        many = await plane.predict_many(plane.find(), [request(), request()])
        with pytest.raises(InvalidInput, match=r"instances\[1\]: no features of view 'carrier'"):
            await plane.predict_many(plane.find(), [request(), request(entities={"carrier": "??", "origin": "EWR"})])
        redis_server.stop()
        try:
            for ask in (plane.predict(plane.find(), request()), plane.predict_many(plane.find(), [request()])):
                with pytest.raises(Unavailable, match="Check that Redis runs"):
                    await ask
        finally:
            redis_server.start()
        for spec, rows in ((CARRIER, {"UA": [0.2, 7.5]}), (WEATHER, {"EWR": [11.0]})):
            distant.materialize(spec, rows)
        again = await plane.predict(plane.find(), request())
        plane.close()
        return one, *many, again

    (local,) = run(world, variant, request())
    assert {answer.probability for answer in asyncio.run(answers())} == {local.probability}


def test_an_online_store_that_is_gone_is_told_and_not_made_anew(world):
    variant, store, away = world.add_model(1), world.root / "online.db", world.root / "away.db"

    async def answers() -> tuple[object, object]:
        plane = plane_of(world)
        await plane.swap(table(1, variant))
        before = await plane.predict(plane.find(), request())
        store.rename(away)
        for ask in (plane.predict(plane.find(), request()), plane.predict_many(plane.find(), [request()])):
            with pytest.raises(Unavailable, match=r"online store .*online.db is not there"):
                await ask
        assert not store.exists()
        away.rename(store)
        after = await plane.predict(plane.find(), request())
        plane.close()
        return before, after

    before, after = asyncio.run(answers())
    assert before.probability == after.probability


def test_a_tick_is_one_frame_in_the_log(world):
    run(world, world.add_model(1), *(request() for _ in range(20)))
    (segment,) = segments(world)
    assert int.from_bytes(segment.read_bytes()[:4], "little") == segment.stat().st_size - 8


def test_requests_without_rows_leave_nothing_in_the_log_of_others(world):
    variant = world.add_model(1, views=False)

    async def answers() -> None:
        plane = plane_of(world)
        await plane.swap(table(1, variant))
        blocks = [
            Block(np.zeros((rows, 2)), prediction_id=f"{rows}-{number}") for number in range(9) for rows in (0, 2)
        ]
        asked = await asyncio.gather(*(plane.predict_block(plane.find(), block) for block in blocks))
        assert [len(outcome.predictions) for _, outcome in asked] == [0, 2] * 9
        assert plane.fault is None
        plane.close()

    asyncio.run(answers())
    found = {record.prediction_id for record in read_predictions(world.settings.prediction_log)}
    assert found == {f"2-{number}-{row}" for number in range(9) for row in (0, 1)}


def test_a_torn_tail_of_the_log_is_dropped_and_the_rest_is_kept(world):
    variant = world.add_model(1)

    async def two_ticks() -> None:
        plane = plane_of(world)
        await plane.swap(table(1, variant))
        await plane.predict(plane.find(), request(prediction_id="first"))
        await plane.predict(plane.find(), request(prediction_id="torn"))

    asyncio.run(two_ticks())
    (segment,) = segments(world)
    os.truncate(segment, segment.stat().st_size - 1)
    assert [record.prediction_id for record in read_predictions(world.settings.prediction_log)] == ["first"]


def test_instances_are_refused_as_a_whole_with_every_bad_one_named(world):
    rows = [request(), request(features={}), request(entities={"carrier": "??"})]
    variant = world.add_model(1)

    async def refused() -> InvalidInput:
        plane = plane_of(world)
        await plane.swap(table(1, variant))
        with pytest.raises(InvalidInput) as caught:
            await plane.predict_many(plane.find(), rows)
        return caught.value

    error = asyncio.run(refused())
    assert error.message == "2 of 3 instances cannot be scored"
    assert [detail[:13] for detail in error.details] == ["instances[1]:", "instances[2]:"]
    assert segments(world) == []


def test_a_version_registered_anew_with_other_files_is_loaded_anew(world):
    first = world.add_model(1)
    other = world.add_model(2)
    renamed = type(first)("champion", "flights", 1, other.source, other.digest, 100.0)

    async def digests() -> list[str]:
        plane, seen = plane_of(world), []
        for revision, variant in enumerate((first, renamed)):
            await plane.swap(table(revision, variant))
            seen.append(plane.find("flights").champion.served.digest)
        return seen

    assert asyncio.run(digests()) == [first.digest, other.digest]


def test_without_a_table_the_answer_is_that_nothing_is_deployed(world):
    with pytest.raises(Unavailable, match="nothing is deployed yet"):
        plane_of(world).find()


def test_a_model_goes_by_its_name_only_where_one_deployment_serves_it(world):
    variant = world.add_model(1)

    async def found() -> None:
        plane = plane_of(world)
        await plane.swap(RouteTable("a", 1, (variant,), "test", LAST_SEEN))
        assert plane.find("flights").table.deployment == "a"
        await plane.swap(RouteTable("b", 1, (variant,), "test", LAST_SEEN))
        with pytest.raises(InvalidInput, match="several deployments serve model 'flights'\nName one of them: a, b"):
            plane.find("flights")
        await plane.swap(RouteTable("flights", 1, (variant,), "test", LAST_SEEN))
        assert plane.find("flights").table.deployment == "flights"
        plane.withdraw("flights")
        with pytest.raises(InvalidInput, match="several deployments"):
            plane.find("flights")
        plane.close()

    asyncio.run(found())


def test_a_deployment_that_never_loaded_is_told_with_the_reason(world):
    variant = world.add_model(1)
    broken = type(variant)("champion", "flights", 1, variant.source, "0" * 64, 100.0)

    async def found() -> None:
        plane = plane_of(world)
        await plane.swap(RouteTable("whole", 1, (variant,), "test", LAST_SEEN))
        await plane.swap(RouteTable("broken", 1, (broken,), "test", LAST_SEEN))
        assert plane.fault is not None
        with pytest.raises(Unavailable, match="deployment 'broken' does not serve: ") as caught:
            plane.find("broken")
        assert plane.fault.message in caught.value.message
        with pytest.raises(NotFound):
            plane.find("other")
        plane.close()

    asyncio.run(found())


@pytest.mark.parametrize(("of", "word"), [(0.9, "very_high"), (0.7, "high"), (0.5, "medium"), (0.49, "low")])
def test_confidence_is_a_word_for_the_probability_of_the_predicted_class(of, word):
    assert confidence(of) == word


@pytest.mark.parametrize(
    "text", ["", "yesterday", "123", "2013-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_what_is_no_instant_the_log_can_hold_is_refused(text):
    with pytest.raises(InvalidInput, match="is not an instant"):
        parse_instant(text)


def test_a_reward_belongs_to_the_deployment_of_its_path_or_to_the_only_one(world):
    async def sent() -> None:
        plane, body = plane_of(world), b'{"rewards": [{"unit_id": "u", "value": 1}]}'
        of_prediction = b'{"rewards": [{"prediction_id": "p", "value": 1}]}'
        await plane.swap(table(1, world.add_model(1)))
        for one in (body, of_prediction):
            await native.rewards(plane, Request("POST", "/rewards", None, {}, one))
        await plane.swap(dataclasses.replace(table(1, world.add_model(2)), deployment="other"))
        for name in ("other", None):
            await native.rewards(plane, Request("POST", "/rewards", name, {}, body))
        plane.close()

    asyncio.run(sent())
    rewards = read_records(world.settings.prediction_log, REWARDS, RewardRecord)
    assert [one.deployment for one in rewards] == ["flights", "", "other", ""]


def test_a_reward_that_is_posted_again_has_the_name_it_had():
    plain = b'{"rewards": [{"unit_id": "u", "value": 1}, {"unit_id": "u", "value": 1}]}'
    observed = b'{"rewards": [{"unit_id": "u", "value": 1, "observed_at": "2026-03-01T12:00:00Z"}]}'
    assert [one.key for one in decode_rewards(plain, "")] == ["", ""]
    for body, sending in ((plain, "retry-1"), (observed, "")):
        once, again = ([one.key for one in decode_rewards(body, "", "", sending)] for _ in range(2))
        assert once == again and len(set(once)) == len(once)
    assert decode_rewards(plain, "", "", "a")[0].key != decode_rewards(plain, "", "", "b")[0].key


@pytest.mark.parametrize(
    ("field", "words"),
    [('"observed_at": "2999-01-01T00:00:00Z"', "is in the future"), ('"metric": ""', "metric is empty")],
)
def test_a_reward_that_could_never_count_is_refused(field, words):
    body = f'{{"rewards": [{{"unit_id": "u", "value": 1, {field}}}]}}'.encode()
    with pytest.raises(InvalidInput, match=words):
        decode_rewards(body, "")
