"""Redis Streams: an entry's field ``data`` is the message, its other fields are headers."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from noria.errors import InvalidInput, NoriaError, Unavailable
from noria.serving.streams.brokers import StreamUrl
from noria.serving.streams.messages import Answer, Message, forbidden, unauthenticated

_DATA = b"data"
_CLAIM_MILLIS = 30_000
"""Entries that a member of the group holds for longer without a sign of life are taken over."""
_WAIT_SECONDS = 5.0
_NO_DATABASE = ("DB index is out of range", "SELECT is not allowed in cluster mode")
"""What servers, and nodes of clusters, say of a database that they do not have."""


class RedisReader:
    """A member of a consumer group. First it takes over what members that are gone had not acknowledged."""

    def __init__(self, stream: StreamUrl, group: str) -> None:
        self._stream, self._name, self._group = stream, stream.stream, group
        self._claim_millis = int(stream.options.get("claim_ms", _CLAIM_MILLIS))
        self.hold_seconds = self._claim_millis / 1000 / 4
        self._me = f"{socket.gethostname()}-{os.getpid()}"
        self._link = _Link(stream)
        self._joined = False

    async def receive(self, most: int, seconds: float) -> Sequence[Message]:
        """See Reader."""
        async with _telling(self._stream):
            client = await self._link.client()
            if not self._joined:
                await self._join(client)
            try:
                left = await client.xautoclaim(self._name, self._group, self._me, self._claim_millis, count=most)
                entries = [entry for entry in left[1] if entry[1]]
                if not entries:
                    waiting = max(1, int(seconds * 1000))
                    found = await client.xreadgroup(self._group, self._me, {self._name: ">"}, count=most, block=waiting)
                    entries = found[0][1] if found else []
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                self._joined = False  # the server lost the stream
                return []
        return [self._message(identity, fields) for identity, fields in entries]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Reader."""
        async with _telling(self._stream):
            client = await self._link.client()
            await client.xack(self._name, self._group, *(message.handle for message in messages))

    async def hold(self, messages: Sequence[Message]) -> None:
        """See Reader."""
        async with _telling(self._stream):
            first, last = messages[0].handle, messages[-1].handle
            client = await self._link.client()
            held = await client.xpending_range(self._name, self._group, first, last, len(messages), self._me)
            if mine := [entry["message_id"] for entry in held]:  # the others were taken over: two would answer them
                await client.xclaim(self._name, self._group, self._me, 0, mine, justid=True)

    async def lag(self) -> int | None:
        """See Reader: what nobody received yet, and what nobody acknowledged."""
        async with _telling(self._stream):
            client = await self._link.client()
            for group in await client.xinfo_groups(self._name):
                if group["name"] == self._group.encode():
                    return int(group["pending"]) + int(group.get("lag") or 0)
        return None

    async def close(self) -> None:
        """See Reader. A member that holds nothing is forgotten."""
        try:
            async with _telling(self._stream):
                client = await self._link.client()
                held = await client.xpending_range(self._name, self._group, "-", "+", 1, self._me)
                if self._joined and not held:
                    await client.xgroup_delconsumer(self._name, self._group, self._me)
        except NoriaError:
            pass  # it is gone anyway
        finally:
            await self._link.close()

    async def _join(self, client: Any) -> None:
        try:
            await client.xgroup_create(self._name, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._joined = True

    def _message(self, identity: bytes, fields: dict[bytes, bytes]) -> Message:
        body = fields.get(_DATA, next(iter(fields.values())) if len(fields) == 1 else b"")
        headers = {_text(name): _text(value) for name, value in fields.items() if name != _DATA}
        return Message(f"{self._name}/{identity.decode()}", body, "", None, headers, identity)


class RedisWriter:
    """Adds entries, all of a batch in one transaction. ``?maxlen=`` in the URL keeps about so many."""

    def __init__(self, stream: StreamUrl) -> None:
        self._stream = stream
        self._longest = int(stream.options["maxlen"]) if "maxlen" in stream.options else None
        self._link = _Link(stream)

    async def send(self, answers: Sequence[Answer]) -> None:
        """See Writer."""
        if not answers:
            async with _telling(self._stream):
                await (await self._link.client()).ping()
            return
        async with _telling(self._stream), (await self._link.client()).pipeline(transaction=True) as pipeline:
            for answer in answers:
                headers = {name.encode(): value for name, value in answer.all_headers.items()}
                fields: dict[Any, Any] = {**headers, _DATA: answer.body}  # a header called data is not the message
                pipeline.xadd(self._stream.stream, fields, maxlen=self._longest)
            await pipeline.execute()

    async def close(self) -> None:
        """See Writer."""
        await self._link.close()


def _text(found: bytes) -> str:
    """A producer may write any bytes: those that are no UTF-8 are shown as such."""
    return found.decode(errors="replace")


class _Link:
    """A client for one server or, where that belongs to a cluster, for whichever of its nodes has the stream."""

    def __init__(self, stream: StreamUrl) -> None:
        self._server = stream.server
        self._waits: dict[str, Any] = {"socket_connect_timeout": _WAIT_SECONDS, "socket_timeout": 2 * _WAIT_SECONDS}
        self._client: Any = redis.Redis.from_url(self._server, **self._waits)
        self._is_known = False

    async def client(self) -> Any:
        """The client. Raises RedisError, OSError while the server cannot be asked what it is."""
        if not self._is_known:
            about: dict[str, Any] = {}
            with suppress(ResponseError):  # what this user may not ask, or a proxy does not know, is no cluster
                about = await self._client.info("cluster")
            if about.get("cluster_enabled"):
                await self._client.aclose()
                self._client = RedisCluster.from_url(self._server, **self._waits)
            self._is_known = True
        return self._client

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.aclose()


@asynccontextmanager
async def _telling(stream: StreamUrl) -> AsyncIterator[None]:
    try:
        yield
    except AuthenticationError as error:
        raise unauthenticated(stream.shown, error) from error
    except NoPermissionError as error:
        raise forbidden(stream.shown, error) from error
    except (RedisError, RedisClusterException, OSError) as error:
        if any(said in str(error) for said in _NO_DATABASE):
            raise InvalidInput(
                f"{stream.shown}: that Redis has no such database",
                remedy="Name one it has: redis://HOST:6379/0#STREAM.",
            ) from error
        if "WRONGTYPE" in str(error):
            raise InvalidInput(
                f"{stream.shown} is a key that holds something else than a stream", remedy="Name another stream."
            ) from error
        raise Unavailable(
            f"{stream.shown} cannot be used: {error}",
            remedy="Check that Redis runs there, takes writes and has memory.",
        ) from error
