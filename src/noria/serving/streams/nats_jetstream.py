"""NATS JetStream: subjects of a stream that is there already, read by a durable pull consumer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError, NotFoundError

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.serving.streams.brokers import StreamUrl
from noria.serving.streams.messages import HEADER_NAME, Answer, Message, NotTaken, forbidden, unauthenticated

_ACK_SECONDS = 30.0
"""What a consumer holds for longer without a sign of life is given to another."""
_WAIT_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_MESSAGE_TOO_LARGE = 10_054
"""JetStream's code for more than its stream takes, where that is less than the server does."""
_FOR_SERVERS = "nats-"
"""What headers begin with that a server acts upon: those of the source are not meant for another stream."""
_HEADER_LINES = b"NATS/1.0\r\n\r\n"
_UNKNOWN_USER, _FORBIDDEN = "authorization violation", "permissions violation"
"""What a server says of whoever asks, in its own words: the client has no kinds of errors for them."""

_GROUP = re.compile(r"[^\s.*>/\\]{1,255}")
"""What JetStream takes as a consumer's name."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")
_log = structlog.get_logger()


class NatsReader:
    """A durable pull consumer; its name is the group's."""

    def __init__(self, stream: StreamUrl, group: str) -> None:
        if not _GROUP.fullmatch(group):
            raise InvalidInput(
                f"{group!r} is no name of a JetStream consumer",
                remedy="Name a --group without spaces and any of . * > / \\, of 255 characters at most.",
            )
        self._stream, self._group = stream, group
        self._ack_seconds = float(stream.options.get("ack_seconds", _ACK_SECONDS))
        self.hold_seconds = self._ack_seconds / 4
        self._link = _Link(stream)
        self._subscription: Any = None

    async def receive(self, most: int, seconds: float) -> Sequence[Message]:
        """See Reader."""
        async with _telling(self._stream, self._link):
            if self._subscription is None:
                self._subscription = await self._subscribe()
            try:
                found = await self._subscription.fetch(most, timeout=seconds)
            except TimeoutError:  # nothing came, or nothing can
                await self._link.context()
                await self._look_for_consumer()
                return []
            except NatsError:
                self._subscription = None  # a server that forgot the consumer is asked for it again
                raise
        return [_message(one) for one in found]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Reader. Each is confirmed by the server, so that none comes again unnoticed."""
        async with _telling(self._stream, self._link):
            left = [message.handle for message in messages if not message.handle.is_acked]  # by a try that failed
            done = await asyncio.gather(*(one.ack_sync(_WAIT_SECONDS) for one in left), return_exceptions=True)
            faults = [one for one in done if isinstance(one, BaseException)]
            for fault in faults:
                if not isinstance(fault, NoRespondersError):
                    raise fault
        if faults:  # nobody is there to take it: a new consumer gets them again
            self._subscription = None
            _log.info("consumer_gone", stream=self._stream.shown, messages=len(faults))

    async def hold(self, messages: Sequence[Message]) -> None:
        """See Reader."""
        async with _telling(self._stream, self._link):
            for message in messages:
                await message.handle.in_progress()

    async def lag(self) -> int | None:
        """See Reader: what was not delivered yet, and what was not acknowledged."""
        if self._subscription is None:
            return None
        async with _telling(self._stream, self._link):
            info = await self._subscription.consumer_info()
        return int(info.num_pending or 0) + int(info.num_ack_pending or 0)

    async def close(self) -> None:
        """See Reader."""
        await self._link.close()

    async def _look_for_consumer(self) -> None:
        """To a consumer that was deleted nothing comes, and no fetch says so: the next one makes it anew."""
        try:
            await self._subscription.consumer_info()
        except NotFoundError:
            self._subscription = None

    async def _subscribe(self) -> Any:
        """The group's consumer. Raises InvalidInput where it cannot read what it is asked for, or would lose it."""
        context = await self._link.context()
        subject, group = self._stream.stream, self._group
        if len(streams := await self._link.stream_names(subject)) > 1:
            raise InvalidInput(
                f"{self._stream.shown} is in several JetStream streams: {', '.join(streams)}",
                remedy="Name subjects of one of them, and start a process for each.",
            )
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=self._ack_seconds)
        found = await context.pull_subscribe(subject, durable=group, config=config)
        about = (await found.consumer_info()).config
        read = about.filter_subjects or ([about.filter_subject] if about.filter_subject else [])
        if not read:  # all that its stream holds
            read = (await context.stream_info(streams[0])).config.subjects or []
        if read != [subject] or about.ack_policy != AckPolicy.EXPLICIT:
            raise InvalidInput(
                f"{self._stream.shown}: the consumer {group} reads {', '.join(read)} (ack policy {about.ack_policy})",
                remedy="Name another --group: it is made with what this stream needs.",
            )
        return found


class NatsWriter:
    """Publishes with the idempotency key as Nats-Msg-Id: within the stream's window the server drops repeats itself."""

    def __init__(self, stream: StreamUrl) -> None:
        self._stream, self._link = stream, _Link(stream)
        self._subscribed: Any = None

    async def send(self, answers: Sequence[Answer]) -> None:
        """See Writer."""
        faults: dict[str, str] = {}
        async with _telling(self._stream, self._link):
            context = await self._link.context()
            sound = []
            for answer in answers:
                if fault := _fault(_headers(answer), len(answer.body), self._link.max_payload):
                    faults[answer.idempotency_key] = fault
                else:
                    sound.append(answer)
            faults |= await self._link.unless_broken(self._publish(context, sound))
        if faults:
            raise NotTaken(self._stream.shown, faults)

    async def _publish(self, context: Any, answers: Sequence[Answer]) -> dict[str, str]:
        """Publish in order, confirmed in any; returns what the stream does not take. Raises any other fault.

        Not with ``publish_async``, which never ends where the server says no. The first over a connection goes ahead:
        with it the client subscribes to confirmations, and from then on sends in the order in which it is asked.
        """
        alone = 0 if context is self._subscribed else 1
        done = [await self._confirmed(context, answer) for answer in answers[:alone]]
        self._subscribed = context
        done += await asyncio.gather(*(self._confirmed(context, answer) for answer in answers[alone:]))
        faults = {}
        for answer, error in zip(answers, done, strict=True):
            if isinstance(error, APIError) and error.err_code == _MESSAGE_TOO_LARGE:
                faults[answer.idempotency_key] = str(error.description)
            elif error is not None:
                raise error
        return faults

    async def _confirmed(self, context: Any, answer: Answer) -> Exception | None:
        """None, or why it is not: the others are waited for all the same."""
        try:
            await context.publish(self._stream.stream, answer.body, timeout=_ACK_SECONDS, headers=_headers(answer))
        except (NatsError, OSError, TimeoutError) as error:
            return error
        return None

    async def close(self) -> None:
        """See Writer."""
        await self._link.close()


class _Link:
    """A connection that comes back by itself, made when it is first needed."""

    def __init__(self, stream: StreamUrl) -> None:
        self._stream = stream
        self._client: Client | None = None
        self._context: Any = None
        self._fault = self.forbidden = ""
        self._untried = 0
        self._broken = asyncio.Event()

    @property
    def max_payload(self) -> int:
        """How many bytes of headers and body the server takes of a message; a longer one ends the connection."""
        return self._client.max_payload if self._client is not None else 0

    async def context(self) -> Any:
        """JetStream over a connection that is there now. Raises ConnectionError."""
        if self._client is None or self._client.is_closed:
            self._client = await self._connected()
            self._context = self._client.jetstream(timeout=_WAIT_SECONDS)  # each subscribes to its confirmations
        if not self._client.is_connected:
            raise ConnectionError("the connection is lost")
        return self._context

    async def unless_broken(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what waits for the server; end it when no answer will come. Raises ConnectionError."""
        self._broken.clear()
        doing, watching = asyncio.create_task(work), asyncio.create_task(self._broken.wait())
        try:
            await asyncio.wait([doing, watching], return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise ConnectionError(self.forbidden or "the connection is lost")
        finally:
            doing.cancel()
            watching.cancel()

    async def stream_names(self, subject: str) -> list[str]:
        """The JetStream streams that hold a subject, or some of a pattern's."""
        client, asked = self._client, json.dumps({"subject": subject}).encode()
        assert client is not None
        answer = await client.request("$JS.API.STREAM.NAMES", asked, timeout=_WAIT_SECONDS)
        return json.loads(answer.data).get("streams") or []

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            await _closed(self._client)

    async def _connected(self) -> Client:
        """A new connection. Raises ConnectionError, Unauthenticated: the client would try for it without end."""
        client = Client()
        servers = _servers(self._stream.server)
        self._untried = len(servers)
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await client.connect(
                    servers,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    error_cb=self._note,
                    disconnected_cb=self._break,
                )
        except TimeoutError:
            await _closed(client)
            raise ConnectionError(self._fault or "nobody answers") from None
        except (NoriaError, OSError):
            await _closed(client)
            raise
        return client

    async def _note(self, error: Exception) -> None:
        """A lost connection is told of by the call that needs it; this is why there is none.

        Raises ConnectionError, once it comes of all servers, or Unauthenticated out of ``connect``, which would try for
        ever.
        """
        self._fault = str(error) or type(error).__name__
        said = self._fault.lower()
        if _FORBIDDEN in said:  # whoever is refused hears nothing more: the call would run out of time
            self.forbidden = self._fault
            self._broken.set()
        if self._client is None or self._client.is_closed:
            if _UNKNOWN_USER in said:
                raise unauthenticated(self._stream.shown, self._fault)
            self._untried -= 1
            if self._untried <= 0:
                raise ConnectionError(self._fault)

    async def _break(self) -> None:
        """What was asked over a connection that is lost is not answered over the next one."""
        self._broken.set()


async def _closed(client: Client) -> None:
    """Close a connection, though it may have more to write and nowhere to, or wait for a server's farewell."""
    with suppress(NatsError, OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


def _servers(url: str) -> list[str]:
    """Each server of a cluster by a URL of its own; user and password are the same for all."""
    scheme, _, rest = url.partition("://")
    user, at, hosts = rest.rpartition("@")
    return [f"{scheme}://{user}{at}{host}" for host in hosts.rstrip("/").split(",")]


def _headers(answer: Answer) -> dict[str, str]:
    """An answer's headers as they are published."""
    kept = {name: value for name, value in answer.all_headers.items() if not name.lower().startswith(_FOR_SERVERS)}
    return {**kept, "Nats-Msg-Id": answer.idempotency_key}


def _fault(headers: Mapping[str, str], body_bytes: int, most: int) -> str:
    """What is wrong with a message itself, empty where nothing is."""
    if bad := [name for name in headers if not HEADER_NAME.fullmatch(name)]:
        return f"{bad[0][:100]!r} is no header's name"
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    size = len(_HEADER_LINES) + lines + body_bytes
    return f"its {size:,} bytes with headers are more than the {most:,} of max_payload" if size > most else ""


def _message(one: Any) -> Message:
    about = one.metadata
    since = (about.timestamp - _EPOCH) // timedelta(microseconds=1)  # a stream that is made anew counts from 1 again
    position = f"{about.stream}/{about.sequence.stream}-{since}"
    return Message(position, one.data, one.subject, None, dict(one.headers or {}), one)


@asynccontextmanager
async def _telling(stream: StreamUrl, link: _Link) -> AsyncIterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise Unavailable(
            f"{stream.shown}: no JetStream stream has that subject",
            remedy=f"Make one: nats stream add --subjects {stream.stream!r}; it is looked for again by itself.",
        ) from error
    except (NatsError, OSError, TimeoutError) as error:
        if link.forbidden:
            raise forbidden(stream.shown, link.forbidden) from error
        raise Unavailable(
            f"{stream.shown} cannot be used: {str(error) or type(error).__name__}",
            remedy="Check that NATS runs there with JetStream on.",
        ) from error
