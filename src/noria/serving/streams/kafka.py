"""Kafka's protocol, through librdkafka. Its calls wait, so each is made beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.serving.streams.brokers import StreamUrl
from noria.serving.streams.messages import OUR_HEADERS, Answer, Kept, Message, NotTaken, forbidden, unauthenticated

_DELIVERY_MILLIS = 30_000
_TICK_SECONDS = 0.5
_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 1.0
"""How long a broker may take to say that it is there, once a connection to one failed."""
_MOVED = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST,
)
"""Why offsets are not taken while partitions go to other members: whoever has them next answers the messages again."""
_NOT_TAKEN = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
)
"""What is wrong with a message itself, whoever sends it."""
_FORBIDDEN = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
"""What a broker says to users that it knows."""

_log = structlog.get_logger()


class KafkaReader:
    """A consumer that commits only what was acknowledged. Partitions are paused while nothing is received."""

    hold_seconds = 5.0

    def __init__(self, stream: StreamUrl, group: str) -> None:
        self._stream = stream
        ours: dict[str, Any] = {
            "bootstrap.servers": stream.server,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
        }
        self._asking = _Asking(stream)
        with _options_of(stream):
            self._consumer = Consumer({**ours, **stream.options, "logger": _Quiet(), "error_cb": self._asking.note})
            self._consumer.subscribe([stream.stream])
        self._held: list[Any] = []
        self._paused = False

    async def receive(self, most: int, seconds: float) -> Sequence[Message]:
        """See Reader."""
        found = await asyncio.to_thread(self._consume, most, seconds)
        faults = [one.error() for one in found if one.error() is not None]
        if faults and len(faults) == len(found):
            raise _refusal(self._stream, faults[0])
        return [_message(one) for one in found if one.error() is None]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Reader."""
        last: dict[tuple[str, int], int] = {}
        for message in messages:
            topic, partition, offset = message.handle
            last[topic, partition] = offset + 1
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in last.items()]
        try:
            await asyncio.to_thread(self._consumer.commit, offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _MOVED:
                raise _refusal(self._stream, error.args[0]) from None
            _log.info("partitions_moved", stream=self._stream.shown, messages=len(messages))

    async def hold(self, messages: Sequence[Message]) -> None:
        """See Reader: the group hears of us, and nothing is fetched meanwhile."""
        del messages
        await asyncio.to_thread(self._hold)

    async def lag(self) -> int | None:
        """See Reader."""
        return await asyncio.to_thread(self._lag)

    async def close(self) -> None:
        """See Reader."""
        await asyncio.to_thread(self._consumer.close)

    def _consume(self, most: int, seconds: float) -> list[Any]:
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False
        held, self._held = self._held, []
        try:
            found = held or self._some(most, seconds)
            if not found and self._asking.has_fault:
                self._asking.ask(self._consumer)
            return found
        except KafkaException as error:
            raise _refusal(self._stream, error.args[0]) from None

    def _some(self, most: int, seconds: float) -> list[Any]:
        """What is there, once there is any: librdkafka itself would wait until there are so many."""
        if (first := self._consumer.poll(seconds)) is None:
            return []
        return [first, *self._consumer.consume(most - 1, 0)] if most > 1 else [first]

    def _hold(self) -> None:
        if not self._paused:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        if (one := self._consumer.poll(0)) is not None and one.error() is None:
            self._held.append(one)

    def _lag(self) -> int | None:
        try:
            if not (assigned := self._consumer.assignment()):  # to be asked for nothing waits for the group
                return None
            total = 0
            for where in self._consumer.committed(assigned, timeout=_LOOK_SECONDS):
                is_known = where.offset >= 0
                # What the last fetch said: to ask waits for the fetch under way. While paused there is none, nor news.
                cached = is_known and not self._paused
                low, high = self._consumer.get_watermark_offsets(where, timeout=_LOOK_SECONDS, cached=cached)
                if high < 0:
                    return None
                total += high - (where.offset if is_known else low)
        except KafkaException:
            return None
        return total


class KafkaWriter:
    """An idempotent producer; ``send`` ends when every message is acknowledged by all replicas in sync."""

    def __init__(self, stream: StreamUrl) -> None:
        self._stream = stream
        self._asking = _Asking(stream)
        self._producer = self._made()

    async def send(self, answers: Sequence[Answer]) -> None:
        """See Writer."""
        await asyncio.to_thread(self._send, answers)

    async def close(self) -> None:
        """See Writer."""
        await asyncio.to_thread(self._producer.flush, _CLOSE_SECONDS)

    def _made(self) -> Producer:
        ours: dict[str, Any] = {
            "bootstrap.servers": self._stream.server,
            "enable.idempotence": True,
            "message.timeout.ms": _DELIVERY_MILLIS,
            "linger.ms": 2,
        }
        with _options_of(self._stream):
            return Producer({**ours, **self._stream.options, "logger": _Quiet(), "error_cb": self._asking.note})

    def _send(self, answers: Sequence[Answer]) -> None:
        if not answers:
            self._asking.ask(self._producer)
            return
        faults = self._deliver(answers)
        if len(answers) > 1:  # a broker refuses what came together for one of it: each is tried by itself
            doubtful = [answer for answer in answers if answer.idempotency_key in faults]
            faults = {key: why for answer in doubtful for key, why in self._deliver([answer]).items()}
        if faults:
            raise NotTaken(self._stream.shown, faults)

    def _deliver(self, answers: Sequence[Answer]) -> Mapping[str, str]:
        """Send them; returns what is wrong with those that are not taken, by key. Raises Unavailable for all else."""
        faults: dict[str, KafkaError] = {}
        for answer in answers:
            self._produce(answer, faults)
        while self._producer.flush(_TICK_SECONDS):  # each message is delivered, or has failed, when its time is over
            self._end_if_refused()
        for error in faults.values():
            if error.code() == KafkaError._FATAL or error.fatal():  # this producer is never any good again
                self._producer = self._made()
            if error.code() not in _NOT_TAKEN:
                raise _refusal(self._stream, error)
        return {key: error.str() for key, error in faults.items()}

    def _end_if_refused(self) -> None:
        """Raises Unauthenticated where what is produced waits for a broker that does not take the credentials."""
        if self._asking.is_refused:
            try:
                self._asking.ask(self._producer)
            except NoriaError:
                self._producer.purge()
                raise

    def _produce(self, answer: Answer, faults: dict[str, KafkaError]) -> None:
        identity = answer.idempotency_key
        key = identity.encode() if answer.key is None else answer.key
        headers, body = _headers(answer), None if answer.kept and answer.kept.is_null else answer.body

        def delivered(error: KafkaError | None, _message: Any) -> None:
            if error is not None:
                faults[identity] = error

        while True:
            try:
                self._producer.produce(self._stream.stream, body, key, headers=headers, on_delivery=delivered)
                return
            except BufferError:  # the local queue is full
                self._producer.poll(_TICK_SECONDS)
            except KafkaException as error:
                faults[identity] = error.args[0]
                return


class _Asking:
    """What librdkafka tells of lost connections beside its calls: it tries again by itself, and fails none."""

    def __init__(self, stream: StreamUrl) -> None:
        self._stream = stream
        self._fault: KafkaError | None = None

    @property
    def has_fault(self) -> bool:
        """Whether a connection failed since a broker answered."""
        return self._fault is not None

    @property
    def is_refused(self) -> bool:
        """Whether the last that was heard is that a broker does not take the credentials."""
        return self._fault is not None and self._fault.code() == KafkaError._AUTHENTICATION

    def note(self, error: KafkaError) -> None:
        """Keep why a connection failed."""
        if self._fault is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # which says less
            self._fault = error

    def ask(self, client: Consumer | Producer) -> None:
        """A broker that answers settles it. Raises Unavailable, or Unauthenticated and Forbidden where one says so."""
        fault, self._fault = self._fault, None
        try:
            found = client.list_topics(self._stream.stream, timeout=_LOOK_SECONDS)
        except KafkaException as error:
            if isinstance(client, Producer):
                client.poll(0)  # which tells why
            self._fault = self._fault or fault
            raise _refusal(self._stream, self._fault or error.args[0]) from None
        for topic in found.topics.values():
            if topic.error is not None and topic.error.code() in _FORBIDDEN:
                raise _refusal(self._stream, topic.error)


class _Quiet:
    """librdkafka tells of every lost connection; what matters comes with an error of a call."""

    def log(self, *_: object) -> None:
        """Say nothing."""


def _message(one: Any) -> Message:
    topic, partition, offset = one.topic(), one.partition(), one.offset()
    given: Sequence[tuple[str, bytes | None]] = ()
    fault = ""
    try:
        given = one.headers() or ()
    except Exception as error:  # names that are no UTF-8: whatever it is, the messages behind it are not held up
        fault = f"its headers cannot be read: {error}"
    handle = (topic, partition, offset)
    position = f"{topic}/{partition}/{offset}-{one.timestamp()[1]}"  # a topic that is made anew begins at 0 again
    headers = {name: (value or b"").decode(errors="replace") for name, value in given}
    kept = Kept(given, one.value() is None)
    return Message(position, one.value() or b"", str(partition), one.key(), headers, handle, fault, kept)


def _headers(answer: Answer) -> list[tuple[str, str | bytes | None]]:
    """An answer's headers as they are produced: of what is kept those that Noria does not write itself."""
    written: list[tuple[str, str | bytes | None]] = list(answer.all_headers.items())
    if answer.kept is None:
        return written
    ours = [(name, value) for name, value in written if name in OUR_HEADERS]
    return [*((name, value) for name, value in answer.kept.headers if name not in OUR_HEADERS), *ours]


@contextmanager
def _options_of(stream: StreamUrl) -> Iterator[None]:
    """Raises InvalidInput for what librdkafka does not know, or take."""
    try:
        yield
    except KafkaException as error:
        raise InvalidInput(
            f"{stream.shown}: {error.args[0].str()}", remedy="Write librdkafka's own options behind the ?."
        ) from None


def _refusal(stream: StreamUrl, error: KafkaError) -> NoriaError:
    """The error that a broker's means: whether waiting may mend it."""
    if error.code() == KafkaError._AUTHENTICATION:
        return unauthenticated(stream.shown, error.str())
    if error.code() in _FORBIDDEN:
        return forbidden(stream.shown, error.str())
    return Unavailable(
        f"{stream.shown} cannot be used: {error.str()}", remedy="Check that the broker runs, and that the topic exists."
    )
