"""Consume, predict, produce on real brokers: nothing is lost, nothing blocks, and what is repeated says so."""

from __future__ import annotations

import json
import time

import pytest

from noria.monitoring.log import read_predictions
from serving.streams.stream_world import MODEL, Consumer, Streams, body


def by_key(messages):
    found: dict[str, list[dict]] = {}
    for message in messages:
        found.setdefault(message.headers["noria-idempotency-key"], []).append(json.loads(message.body))
    return found


def everything(count):
    return lambda messages: len({one.headers["noria-idempotency-key"] for one in messages}) >= count


def in_order(messages) -> bool:
    """Whether the first answers to the messages of each partition came in the partition's order."""
    last: dict[str, tuple[int, ...]] = {}
    seen = set()
    for message in messages:
        source = message.headers["noria-source"]
        if source in seen:
            continue
        seen.add(source)
        partition, _, place = source.rpartition("/")
        where = tuple(map(int, place.split("-")))
        if last.get(partition, (-1,)) > where:
            return False
        last[partition] = where
    return True


def test_every_message_is_answered_once_in_order_and_what_is_malformed_is_set_aside(world, streams):
    poison = [b"no json", b'{"features": {"a": "far", "b": 1, "c": 1}}', b'{"features": {}}', b""]
    event = {"specversion": "1.0", "id": "e1", "source": "/me", "type": "t", "data": json.loads(body(7))}
    bodies = [body(n) for n in range(300)]
    bodies[100:100] = poison
    streams.publish([*bodies, json.dumps(event).encode()], keys=[b"k%d" % (n % 8) for n in range(305)])
    consumer = Consumer(world.workspace.folder.parent, streams)
    answered, refused = streams.consumed("out", everything(301)), streams.consumed("dead", everything(4))
    metrics = consumer.wait_until(lambda now: now["produced_total"] == 301 and now["in_flight"] == 0)
    consumer.stop()
    assert len(answered) == 301 and in_order(answered)
    assert (metrics["consumed_total"], metrics["dead_lettered_total"]) == (305, 4)
    assert {one.body for one in refused} == set(poison)
    assert all("invalid_input: " in one.headers["noria-reason"] and one.headers["noria-source"] for one in refused)
    answers = [json.loads(one.body) for one in answered]
    (correlated,) = [one for one in answers if one.get("correlationid") == "e1"]
    assert correlated["data"]["model"] == MODEL and correlated["data"]["prediction"] in (0, 1)
    plain = [one for one in answers if "specversion" not in one]
    assert {one["model_version"] for one in plain} == {"1"} and all(0 <= one["score"] <= 1 for one in plain)
    logged = {record.prediction_id for record in read_predictions(world.workspace.prediction_log)}
    assert {one["prediction_id"] for one in plain} <= logged


def test_a_consumer_that_is_killed_loses_nothing_and_repeats_under_the_same_key(world, streams):
    count = 3000
    streams.publish([body(n) for n in range(count)], keys=[b"%d" % (n % 50) for n in range(count)])
    for reached in (200, 900):
        consumer = Consumer(world.workspace.folder.parent, streams, "--batch", "64")
        consumer.wait_until(lambda now, reached=reached: now["produced_total"] >= reached)
        consumer.kill()
    consumer = Consumer(world.workspace.folder.parent, streams, "--batch", "64")
    answered = streams.consumed("out", everything(count))
    consumer.wait_until(lambda now: now["in_flight"] == 0)
    consumer.stop()
    repeats = {key: found for key, found in by_key(answered).items() if len(found) > 1}
    assert len(by_key(answered)) == count and len(answered) < 1.5 * count
    for found in repeats.values():
        assert len({(one["prediction_id"], one["score"]) for one in found}) == 1


def test_consumers_of_one_group_share_a_stream(world, streams):
    consumers = [Consumer(world.workspace.folder.parent, streams, "--batch", "32") for _ in range(2)]
    for start in range(0, 900, 30):  # slowly enough for the group to find itself together
        streams.publish([body(n) for n in range(start, start + 30)], keys=[b"%d" % n for n in range(start, start + 30)])
    answered = streams.consumed("out", everything(900))
    for consumer in consumers:
        consumer.wait_until(lambda now: now["in_flight"] == 0)
    shares = [consumer.metrics()["produced_total"] for consumer in consumers]
    for consumer in consumers:
        consumer.stop()
    assert len(by_key(answered)) == 900 and sum(shares) == len(answered) < 1350
    assert min(shares) > 0


def test_what_was_acknowledged_is_not_consumed_again(world, streams):
    streams.publish([body(n) for n in range(50)])
    first = Consumer(world.workspace.folder.parent, streams)
    first.wait_until(lambda now: now["produced_total"] == 50 and now["in_flight"] == 0)
    first.stop()
    streams.publish([body(n) for n in range(5)])
    second = Consumer(world.workspace.folder.parent, streams)
    second.wait_until(lambda now: now["produced_total"] >= 5 and now["in_flight"] == 0)
    second.stop()
    assert second.log and len(streams.consumed("out", everything(55))) == 55


def test_a_broker_that_goes_away_and_comes_back_costs_nothing(world, broker, streams):
    if broker.server is None:
        pytest.skip("librdkafka's mock cluster cannot be stopped from Python")
    streams.publish([body(n) for n in range(20)])
    consumer = Consumer(world.workspace.folder.parent, streams)
    consumer.wait_until(lambda now: now["produced_total"] == 20)
    broker.server.stop()
    consumer.wait_until(lambda now: now.get("retries_total", 0) >= 2)
    broker.server.start()
    streams.publish([body(n) for n in range(20)])
    consumer.wait_until(lambda now: now["produced_total"] >= 40 and now["in_flight"] == 0)
    consumer.stop()
    assert len(by_key(streams.consumed("out", everything(40)))) == 40


def test_a_sink_that_is_away_holds_the_source_back(world, streams, tmp_path_factory):
    from servers import RedisServer
    from serving.streams.stream_world import RedisBroker

    away = RedisServer(tmp_path_factory.mktemp("away"))
    sink = RedisBroker(away).url("slow")
    away.stop()
    streams.publish([body(n) for n in range(500)])

    class Elsewhere(Streams):
        def url(self, end: str) -> str:
            return sink if end == "out" else super().url(end)

    elsewhere = Elsewhere(streams.broker, streams.name)
    consumer = Consumer(world.workspace.folder.parent, elsewhere, "--batch", "20")
    held = consumer.wait_until(lambda now: now.get("retries_total", 0) >= 4)
    assert (held["consumed_total"], held["in_flight"], held["produced_total"]) == (20, 20, 0)
    away.start()
    consumer.wait_until(lambda now: now["produced_total"] >= 500 and now["in_flight"] == 0)
    consumer.stop()
    assert len(by_key(elsewhere.consumed("out", everything(500)))) == 500
    away.stop()


def test_messages_wait_while_nothing_is_deployed(streams, tmp_path):
    from lifecycle.rollout_world import RolloutWorld

    world = RolloutWorld(tmp_path)
    version = world.add_version()
    streams.publish([body(n) for n in range(5)])
    consumer = Consumer(tmp_path, streams)
    consumer.wait_until(lambda now: now.get("retries_total", 0) >= 2)
    world.deploy(version)
    consumer.wait_until(lambda now: now["produced_total"] == 5)
    consumer.stop()


def test_a_model_answers_without_being_deployed(world, streams):
    streams.publish([body(1)])
    consumer = Consumer(world.workspace.folder.parent, streams, "--model", f"models:/{MODEL}/1")
    (answer,) = streams.consumed("out", everything(1))
    consumer.stop()
    assert json.loads(answer.body)["model_version"] == "1"


def test_the_lag_is_told(world, streams):
    streams.publish([body(n) for n in range(30)])
    consumer = Consumer(world.workspace.folder.parent, streams)
    consumer.wait_until(lambda now: now["produced_total"] == 30 and now["in_flight"] == 0)
    began = time.monotonic()
    consumer.wait_until(lambda now: now["lag"] == 0)
    assert time.monotonic() - began < 60
    consumer.stop()
