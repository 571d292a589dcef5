"""Consume, predict, produce on real brokers: nothing is lost, nothing blocks, and what is repeated says so."""

from __future__ import annotations

import asyncio
import json
import time

import nats
import pytest
import redis.asyncio

from noria.monitoring.log import read_predictions
from noria.serving.streams import Answer, Ends, Message, Pump, StreamCounts, open_reader, open_writer
from servers import NatsServer
from serving.streams.stream_world import MODEL, Consumer, KafkaBroker, NatsBroker, Streams, body


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
    for start in range(0, 900, 90):  # slowly enough for the group to find itself together
        streams.publish([body(n) for n in range(start, start + 90)], keys=[b"%d" % n for n in range(start, start + 90)])
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


def test_a_broker_that_is_away_at_the_start_is_waited_for(world, broker, streams):
    broker.server.stop()
    consumer = Consumer(world.workspace.folder.parent, streams)
    consumer.wait_until(lambda now: now.get("retries_total", 0) >= 2)
    broker.server.start()
    streams.publish([body(n) for n in range(20)])
    consumer.wait_until(lambda now: now["produced_total"] >= 20 and now["in_flight"] == 0)
    consumer.stop()
    assert len(by_key(streams.consumed("out", everything(20)))) == 20


def test_it_ends_while_its_broker_went_away(world, broker, streams):
    streams.publish([body(n) for n in range(20)])
    consumer = Consumer(world.workspace.folder.parent, streams)
    consumer.wait_until(lambda now: now["produced_total"] >= 20 and now["in_flight"] == 0)
    broker.server.stop()
    try:
        consumer.wait_until(lambda now: now.get("retries_total", 0) >= 2)
        began = time.monotonic()
        consumer.stop()
        assert time.monotonic() - began < 20
    finally:
        broker.server.start()


@pytest.mark.parametrize("broker", ["redis", "nats"], indirect=True)
def test_what_takes_longer_than_a_member_may_be_silent_is_answered_by_that_member_alone(broker):
    streams = Streams.new(broker)
    source = streams.url("in").replace("claim_ms=1500", "claim_ms=1000").replace("ack_seconds=2", "ack_seconds=1")
    asked: list[str] = []

    async def slowly(message: Message) -> bytes:
        asked.append(message.position)
        await asyncio.sleep(1.6)
        return message.body

    async def run() -> None:
        counts = StreamCounts()
        pumps = [Pump(Ends(open_reader(source, "g"), open_writer(streams.url("out"))), slowly, counts, 4) for _ in "12"]
        tasks = [asyncio.create_task(pump.run()) for pump in pumps]
        while counts.totals()["produced"] < 4:
            await asyncio.sleep(0.02)
        for pump, task in zip(pumps, tasks, strict=True):
            pump.stop()
            await task

    streams.publish([body(n) for n in range(4)])
    asyncio.run(asyncio.wait_for(run(), 30))
    assert sorted(asked) == sorted(set(asked))


def test_a_message_that_comes_alone_does_not_wait_for_others(streams):
    streams.publish([body(1)])

    async def seconds() -> float:
        reader, began = open_reader(streams.url("in"), "group"), time.monotonic()
        assert len(await reader.receive(100, 15)) == 1
        found = time.monotonic() - began
        await reader.close()
        return found

    assert asyncio.run(seconds()) < 10


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_another_member_took_over_is_not_taken_back(broker):
    streams = Streams.new(broker)
    streams.publish([body(n) for n in range(3)])

    async def holders() -> list[list[bytes]]:
        reader, found = open_reader(streams.url("in"), "group"), []
        messages = await reader.receive(3, 5)
        client = redis.asyncio.Redis.from_url(broker.server.url)
        for taken in (messages[1:2], messages):
            await client.xclaim(f"{streams.name}-in", "group", "other", 0, [one.handle for one in taken])
            await reader.hold(messages)
            pending = await client.xpending_range(f"{streams.name}-in", "group", "-", "+", 5)
            found.append([entry["consumer"] == b"other" for entry in pending])
        await client.aclose()
        await reader.close()
        return found

    assert asyncio.run(holders()) == [[False, True, False], [True] * 3]


def test_a_kafka_topic_that_is_made_anew_has_messages_of_its_own():
    async def position(url: str) -> str:
        reader = open_reader(url, "group")
        (message,) = await reader.receive(1, 15)
        await reader.close()
        return message.position

    found = []
    for broker in (KafkaBroker(), KafkaBroker()):
        broker.make("of-one-name")
        writer = open_writer(broker.url("of-one-name"))
        asyncio.run(writer.send([Answer("key", b"1", b"key")]))
        asyncio.run(writer.close())
        found.append(asyncio.run(position(broker.url("of-one-name"))))
    assert found[0] != found[1] and len({one.rpartition("-")[0] for one in found}) == 1


@pytest.fixture(scope="module")
def nats_broker(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats-alone"))
    yield NatsBroker(server)
    server.stop()


def test_an_acknowledgement_that_half_of_the_messages_had_is_given_again(nats_broker):
    streams = Streams.new(nats_broker)
    streams.publish([body(n) for n in range(5)])

    async def acknowledged_twice() -> int | None:
        reader = open_reader(streams.url("in"), "group")
        messages = await reader.receive(5, 5)
        await messages[0].handle.ack_sync()
        await reader.acknowledge(messages)
        lag = await reader.lag()
        await reader.close()
        return lag

    assert asyncio.run(acknowledged_twice()) == 0


def test_a_nats_stream_that_is_made_anew_has_messages_of_its_own(nats_broker):
    streams, other = Streams.new(nats_broker), Streams.new(nats_broker)

    async def answer_both() -> None:
        reader, writer = open_reader(streams.url("in"), "group"), open_writer(other.url("out"))
        client = await nats.connect(nats_broker.server.url)
        jetstream = client.jetstream()
        for _ in range(2):  # JetStream drops what has a key that it knows
            await jetstream.publish(f"{streams.name}-in", b"1")
            while not (messages := await reader.receive(5, 1)):
                pass
            await writer.send([Answer(one.position, one.body) for one in messages])
            await reader.acknowledge(messages)
            await jetstream.delete_stream(f"{streams.name}-in".upper())
            await jetstream.add_stream(name=f"{streams.name}-in".upper(), subjects=[f"{streams.name}-in"])
        await client.close()
        await reader.close()
        await writer.close()

    asyncio.run(answer_both())
    assert len(other.consumed("out", lambda found: len(found) >= 2)) == 2


def test_a_nats_writer_subscribes_to_confirmations_once(nats_broker):
    streams = Streams.new(nats_broker)

    async def tasks() -> list[int]:
        writer, found = open_writer(streams.url("in")), []
        for n in range(20):
            await writer.send([Answer(str(n), body(n))])
            found.append(len(asyncio.all_tasks()))  # each subscription has one
        await writer.close()
        return found

    found = asyncio.run(tasks())
    assert found[0] == found[-1]


def test_messages_of_a_nats_consumer_that_was_deleted_come_again(nats_broker):
    streams = Streams.new(nats_broker)
    streams.publish([body(n) for n in range(5)])

    async def received_again() -> list[int]:
        reader, found = open_reader(streams.url("in"), "group"), []
        client = await nats.connect(nats_broker.server.url)
        for acknowledges in (True, False):  # it is deleted while a batch is in flight, and while nothing is
            messages = await reader.receive(5, 5)
            found.append(len(messages))
            await client.jetstream().delete_consumer(f"{streams.name}-in".upper(), "group")
            await (reader.acknowledge(messages) if acknowledges else reader.receive(5, 0.2))
        found.append(len(await reader.receive(5, 5)))
        await client.close()
        await reader.close()
        return found

    assert asyncio.run(received_again()) == [5, 5, 5]


@pytest.mark.parametrize("kind", ["redis", "nats", "kafka"])
def test_it_ends_while_its_broker_never_answered(world, kind):
    class Nowhere(Streams):
        def url(self, end: str) -> str:
            return f"{kind}://127.0.0.1:1#{end}"

    consumer = Consumer(world.workspace.folder.parent, Nowhere(None, ""))
    consumer.wait_until(lambda now: now.get("retries_total", 0) >= 1)
    began = time.monotonic()
    consumer.stop()
    assert time.monotonic() - began < 20
    waits = [line for line in consumer.log if "stream_waits" in line]
    assert waits and f"{kind}://127.0.0.1:1#in cannot be used" in waits[0] and "refused" in waits[0]


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
    consumer.wait_until(lambda now: now["lag"] == 500)
    held = consumer.wait_until(lambda now: now.get("retries_total", 0) >= 3)
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
    assert any(f"waiting: there is no deployment '{MODEL}' yet" in line for line in consumer.log)
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
