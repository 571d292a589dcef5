"""What a broker takes from nobody, and URLs that cannot be meant: told and set aside, never waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

import confluent_kafka
import nats
import pytest
import redis
from nats.js.api import StreamConfig

from lifecycle.rollout_world import MODEL
from noria.errors import InvalidInput
from noria.serving.streams import Answer, Ends, Message, Pump, StreamCounts, check_apart, open_reader, open_writer
from noria.serving.streams.brokers import parse_stream
from noria.serving.streams.kafka import _message as kafka_message
from noria.serving.streams.messages import OUR_HEADERS, SIZE_HEADER, NotTaken
from servers import NatsServer, RedisServer
from serving.streams.stream_world import KafkaBroker, NatsBroker, RedisBroker, Streams
from support import noria

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def nats_broker(tmp_path_factory) -> Iterator[NatsBroker]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield NatsBroker(server)
    server.stop()


@pytest.fixture(scope="module")
def redis_broker(tmp_path_factory) -> Iterator[RedisBroker]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield RedisBroker(server)
    server.stop()


@pytest.fixture(scope="module")
def kafka_broker() -> KafkaBroker:
    return KafkaBroker()


async def answered(message: Message) -> bytes:
    """Refuses what begins with x, and answers with as much as is asked for."""
    if message.body.startswith(b"x"):
        raise InvalidInput("the features are 'x\r\nInjected: 1'", remedy="Mend them.")
    return b"a" * int(message.body)


def pumped(source: str, sink: str, dead_letters: str, count: int) -> dict[str, int]:
    """Pump so many messages; they must all be acknowledged in time."""

    async def run() -> dict[str, int]:
        counts = StreamCounts()
        ends = Ends(
            open_reader(source, "group"), open_writer(sink), open_writer(dead_letters) if dead_letters else None
        )
        one = Pump(ends, answered, counts, 8)
        task = asyncio.create_task(one.run())
        async with asyncio.timeout(20):
            while counts.totals()["consumed"] < count or counts.registry.get_sample_value("noria_stream_in_flight"):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        one.stop()
        await task
        return counts.totals()

    return asyncio.run(run())


def letters(streams: Streams, count: int, end: str = "dead") -> list[Message]:
    return streams.consumed(end, lambda found: len(found) >= count)


def check_notice(notice: Message, size: int) -> None:
    document = json.loads(notice.body)
    assert document["noria-source"] == notice.headers["noria-source"]
    assert document["noria-size-bytes"] == notice.headers["noria-size-bytes"] == str(size)
    assert "invalid_input: the features are 'x" in notice.headers["noria-reason"]
    assert "left out here: " in notice.headers["noria-reason"]


@pytest.mark.parametrize("over", [96, -1000])
def test_a_message_that_nats_dead_letters_have_no_room_for_is_told_of_in_its_place(nats_broker, redis_broker, over):
    streams = Streams.new(nats_broker)
    large = b"x" * (MEBIBYTE - 96 if over > 0 else 3_000_000)
    source = redis_broker.url(streams.name)
    with redis.Redis.from_url(redis_broker.server.url) as client:
        for one in (b"1", large, b"2"):
            client.xadd(streams.name, {"data": one})
    totals = pumped(source, streams.url("out"), streams.url("dead"), 3)
    assert (totals["produced"], totals["dead_lettered"]) == (2, 1)
    (notice,) = letters(streams, 1)
    check_notice(notice, len(large))


def test_a_message_of_nats_itself_that_its_headers_make_too_large_does_not_block(nats_broker):
    streams = Streams.new(nats_broker)

    async def publish() -> None:
        client = await nats.connect(nats_broker.server.url)
        for one in (b"1", b"x" * 1_048_480, b"2"):
            await client.jetstream().publish(f"{streams.name}-in", one)
        await client.close()

    asyncio.run(publish())
    assert pumped(streams.url("in"), streams.url("out"), streams.url("dead"), 3)["produced"] == 2
    check_notice(letters(streams, 1)[0], 1_048_480)


def test_a_stream_that_takes_less_than_its_server_gets_notices_too(nats_broker):
    streams = Streams.new(nats_broker)

    async def limit() -> None:
        client = await nats.connect(nats_broker.server.url)
        name = f"{streams.name}-dead"
        await client.jetstream().update_stream(StreamConfig(name=name.upper(), subjects=[name], max_msg_size=2000))
        await client.close()

    asyncio.run(limit())
    streams.publish([b"1", b"x" * 4000])
    assert pumped(streams.url("in"), streams.url("out"), streams.url("dead"), 2)["dead_lettered"] == 1
    check_notice(letters(streams, 1)[0], 4000)


def test_an_answer_that_is_too_large_makes_its_message_a_dead_letter(nats_broker, kafka_broker):
    for broker in (nats_broker, kafka_broker):
        streams = Streams.new(broker)
        streams.publish([b"1", b"2000000", b"2"])
        assert pumped(streams.url("in"), streams.url("out"), streams.url("dead"), 3)["produced"] == 2
        (letter,) = letters(streams, 1)
        assert letter.body == b"2000000"
        assert "invalid_data: the sink does not take the answer" in letter.headers["noria-reason"]


def test_a_message_that_kafka_does_not_take_back_is_told_of_in_its_place(kafka_broker, redis_broker):
    streams = Streams.new(kafka_broker)
    with redis.Redis.from_url(redis_broker.server.url) as client:
        for one in (b"1", b"x" * 3_000_000, b"2"):
            client.xadd(streams.name, {"data": one})
    assert pumped(redis_broker.url(streams.name), streams.url("out"), streams.url("dead"), 3)["produced"] == 2
    check_notice(letters(streams, 1)[0], 3_000_000)


def test_headers_that_are_none_and_names_that_are_no_utf_8_go_with_their_message(nats_broker, redis_broker):
    streams = Streams.new(nats_broker)
    fields = {"data": "x", "h: x\r\ny": "v\r\nInjected: 1", "\u00fc": "\u00fc"}
    fields |= {b"\xff\xfe": b"\xff", "Nats-Expected-Stream": "Z"}
    with redis.Redis.from_url(redis_broker.server.url) as client:
        client.xadd(streams.name, fields)
        client.xadd(streams.name, {"data": "1", "traceparent": "a\r\nb"})
    assert pumped(redis_broker.url(streams.name), streams.url("out"), streams.url("dead"), 2)["produced"] == 1
    (letter,), (answer,) = letters(streams, 1), letters(streams, 1, "out")
    assert letter.headers["h%3A%20x%0D%0Ay"] == "v  Injected: 1" and letter.headers["%C3%BC"] == "\u00fc"
    assert letter.headers["%EF%BF%BD%EF%BF%BD"] and "Nats-Expected-Stream" not in letter.headers
    assert letter.body == b"x" and "Injected" not in letter.headers
    assert answer.headers["traceparent"] == "a  b"


def test_a_message_whose_headers_cannot_be_read_is_set_aside(redis_broker):
    class Unreadable:
        """As librdkafka's client gives a message with a header's name that is no UTF-8."""

        topic, partition, offset = (lambda _: "t"), (lambda _: 0), (lambda _: 7)
        value, key, timestamp = (lambda _: b"1"), (lambda _: None), (lambda _: (1, 1772366400000))

        def headers(self) -> None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    class Once:
        """A source with that message alone."""

        left = (kafka_message(Unreadable()),)

        async def receive(self, _most: int, _seconds: float) -> Sequence[Message]:
            found, self.left = self.left, ()
            return found

        async def acknowledge(self, _messages: Sequence[Message]) -> None:
            pump.stop()

        async def hold(self, _messages: Sequence[Message]) -> None:
            pass

        hold_seconds = 5.0

        async def lag(self) -> int | None:
            return None

        async def close(self) -> None:
            pass

    sink, aside = (redis_broker.url(f"unreadable-{end}") for end in ("out", "dead"))

    async def run() -> None:
        nonlocal pump
        pump = Pump(Ends(Once(), open_writer(sink), open_writer(aside)), answered, StreamCounts(), 8)
        await pump.run()

    pump: Pump
    asyncio.run(run())
    with redis.Redis.from_url(redis_broker.server.url) as client:
        ((_, letter),) = client.xrange("unreadable-dead")
    assert letter[b"data"] == b"1" and letter[b"noria-source"] == b"t/0/7-1772366400000"
    assert b"its headers cannot be read" in letter[b"noria-reason"]


def test_a_dead_letter_of_kafka_is_as_it_came(kafka_broker):
    streams = Streams.new(kafka_broker)
    given = [("a", b"\xff"), ("a", b"2"), ("none", None), ("noria-source", b"of another stream")]
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka_broker.server.address})
    producer.produce(streams.url("in").partition("#")[2], None, b"key", headers=given)
    producer.flush()
    pumped(streams.url("in"), streams.url("out"), streams.url("dead"), 1)
    reading = {"bootstrap.servers": kafka_broker.server.address, "group.id": "t", "auto.offset.reset": "earliest"}
    consumer = confluent_kafka.Consumer(reading)
    consumer.subscribe([streams.url("dead").partition("#")[2]])
    letter = consumer.poll(60)
    consumer.close()
    assert (letter.value(), letter.key(), letter.headers()[:3]) == (None, b"key", given[:3])
    about = dict(letter.headers()[3:])
    assert about["noria-source"].startswith(streams.name.encode()) and set(about) == OUR_HEADERS - {SIZE_HEADER}


def test_headers_named_as_the_log_names_its_own_do_not_end_the_process(redis_broker):
    with redis.Redis.from_url(redis_broker.server.url) as client:
        client.xadd("logged", {"data": "x", "event": "e", "self": "s"})
    totals = pumped(redis_broker.url("logged"), redis_broker.url("logged-out"), "", 1)
    assert totals["dead_lettered"] == 1


def test_a_header_called_data_does_not_replace_the_message_in_redis(redis_broker):
    async def send() -> None:
        writer = open_writer(redis_broker.url("data-header"))
        await writer.send([Answer("k", b"body", headers={"data": "other"})])
        await writer.close()

    asyncio.run(send())
    with redis.Redis.from_url(redis_broker.server.url) as client:
        assert client.xrange("data-header")[0][1][b"data"] == b"body"


def test_a_writer_has_all_answers_but_those_it_names(nats_broker, kafka_broker):
    for broker in (nats_broker, kafka_broker):
        streams = Streams.new(broker)

        async def send(streams=streams) -> NotTaken:
            writer = open_writer(streams.url("out"))
            with pytest.raises(NotTaken) as refused:
                await writer.send([Answer("a", b"1"), Answer("b", b"x" * 2_000_000), Answer("c", b"2")])
            await writer.close()
            return refused.value

        assert set(asyncio.run(send()).faults) == {"b"}
        assert sorted(one.body for one in letters(streams, 2, "out")) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h:6379/0?claim_ms=x#a", "claim_ms 'x' is out of bounds"),
        ("redis://h:6379/0?claim_ms=-5#a", "out of bounds"),
        ("redis://h:6379/0?maxlen=#a", "out of bounds"),
        ("redis://h:6379/0?clam_ms=5#a", "redis has no option 'clam_ms'"),
        ("nats://h:4222?ack_seconds=0#a", "out of bounds"),
        ("nats://h:4222?ack_seconds=nan#a", "out of bounds"),
        ("nats://h:4222?claim_ms=5000#a", "nats has no option"),
        ("redis://h:port/0#a", "names no stream"),
        ("redis://h:99999/0#a", "names no stream"),
        ("redis://h/zero#a", "names no stream"),
        ("kafka://h:9092,:9092#a", "names no stream"),
        ("nats://[::1#a", "names no stream"),
        ("nats://h:4222#no*", "no name of a stream"),
        ("nats://h:4222#no such", "no name of a stream"),
        ("nats://h:4222#a..b", "no name of a stream"),
        ("kafka://h:9092#a/b", "no name of a stream"),
    ],
)
def test_a_url_that_cannot_be_meant_is_told(url, words):
    for written in (False, True):
        with pytest.raises(InvalidInput, match=words):
            parse_stream(url, written=written)


def test_a_nats_consumer_that_reads_something_else_is_not_joined(nats_broker):
    async def joined(subject: str, group: str) -> None:
        reader = open_reader(nats_broker.url(subject), group)
        try:
            await reader.receive(1, 0.1)
        finally:
            await reader.close()

    async def make() -> None:
        client = await nats.connect(nats_broker.server.url)
        for name in ("FIRST", "SECOND"):
            await client.jetstream().add_stream(name=name, subjects=[f"{name.lower()}.>"])
        await client.jetstream().add_consumer("FIRST", durable_name="forgets", ack_policy="none")
        await client.jetstream().add_consumer("FIRST", durable_name="all", ack_policy="explicit")
        await client.close()

    asyncio.run(make())
    asyncio.run(joined("first.a", "group"))
    asyncio.run(joined("first.a", "group"))
    asyncio.run(joined("first.>", "all"))
    with pytest.raises(InvalidInput, match=r"the consumer group reads first\.a"):
        asyncio.run(joined("first.b", "group"))
    with pytest.raises(InvalidInput, match=r"the consumer all reads first\.>"):
        asyncio.run(joined("first.a", "all"))
    with pytest.raises(InvalidInput, match=r"the consumer forgets reads .*none"):
        asyncio.run(joined("first.>", "forgets"))
    with pytest.raises(InvalidInput, match="in several JetStream streams: FIRST, SECOND"):
        asyncio.run(joined("*.a", "other"))
    with pytest.raises(InvalidInput, match=r"'a\.b' is no name of a JetStream consumer"):
        asyncio.run(joined("first.a", "a.b"))


@pytest.mark.parametrize("url", ["nats://h#orders.*", "nats://h#>", "kafka://h#^orders.*"])
def test_several_streams_are_read_but_not_written(url):
    assert parse_stream(url).stream in url
    with pytest.raises(InvalidInput, match="to write"):
        parse_stream(url, written=True)


@pytest.mark.parametrize(
    ("source", "sink", "dead_letters", "words"),
    [
        ("redis://h/0#a", "redis://h:6379/0?maxlen=5#a", "", "--sink .* answered without end"),
        ("redis://h#a", "redis://h#b", "redis://me:pw@H:6379/0#a", "--dead-letter .* answered without end"),
        ("kafka://h:1,g:2#a", "kafka://g:2#a", "", "without end"),
        ("kafka://h#^a.*", "kafka://h#ab", "", "without end"),
        ("nats://localhost#a.>", "nats://127.0.0.1:4222#a.b.c", "", "without end"),
        ("redis://h#a", "redis://h#b", "redis://h#b", "--sink and --dead-letter are both"),
    ],
)
def test_ends_that_are_one_stream_are_refused(source, sink, dead_letters, words):
    with pytest.raises(InvalidInput, match=words):
        check_apart(source, sink, dead_letters)


def test_streams_of_one_name_at_different_places_are_ends():
    check_apart("redis://h/0#a", "redis://h/1#a", "redis://g/0#a")
    check_apart("nats://h#a.*", "nats://h#a.b.c", "kafka://h#a.b")


def test_the_command_says_what_is_wrong_with_its_ends_at_once(world, redis_broker):
    ends = [word for end in ("source", "sink") for word in (f"--{end}", redis_broker.url("same"))]
    project = world.workspace.folder.parent
    words = ["predict", "stream", "--deployment", MODEL, "--project", str(project)]
    done = noria(*words, *ends, cwd=project, check=False)
    assert done.returncode == 2 and "answered without end" in " ".join(done.stderr.split())


def test_options_and_databases_that_a_broker_does_not_have_are_told_at_once(redis_broker):
    for open_ in (lambda url: open_reader(url, "g"), open_writer):
        with pytest.raises(InvalidInput, match=r"no\.such\.option"):
            open_("kafka://127.0.0.1:1?no.such.option=1#t")
    url = redis_broker.url("a").replace("/0?", "/99?")

    async def receive() -> None:
        reader = open_reader(url, "g")
        try:
            with pytest.raises(InvalidInput, match="no such database"):
                await reader.receive(1, 0.1)
        finally:
            await reader.close()

    asyncio.run(receive())


@pytest.mark.parametrize("end", ["source", "sink"])
def test_a_key_that_is_no_stream_is_told_and_not_waited_for(redis_broker, end):
    with redis.Redis.from_url(redis_broker.server.url) as client:
        client.set(f"no-stream-{end}", "text")
        client.xadd(f"stream-{end}", {"data": b"1"})
    urls = {one: redis_broker.url(f"{'no-' * (one == end)}stream-{end}") for one in ("source", "sink")}
    if end == "source":
        urls["sink"] = redis_broker.url("some-answers")

    async def run() -> None:
        ends = Ends(open_reader(urls["source"], "group"), open_writer(urls["sink"]))
        await asyncio.wait_for(Pump(ends, answered, StreamCounts(), 8).run(), 20)

    with pytest.raises(InvalidInput, match=f"no-stream-{end} is a key that holds something else"):
        asyncio.run(run())


def test_a_token_is_not_shown():
    assert parse_stream("nats://s3cr3t@h:4222#a").shown == "nats://***@h:4222#a"
    assert parse_stream("nats://me:s3cr3t@h:4222#a").shown == "nats://me:***@h:4222#a"
