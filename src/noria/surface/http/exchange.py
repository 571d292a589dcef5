"""One request that arrived whole, and the answer to it, without what ASGI takes for each: a task, events, messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]

_OK = b"HTTP/1.1 200 OK\r\n"


class Connection(Protocol):
    """What an exchange needs of the connection it came by."""

    transport: asyncio.Transport

    @property
    def own_head(self) -> bytes:
        """The headers that every answer of the server has, such as the date, as ``head_of`` writes them."""
        ...

    def on_response_complete(self) -> None:
        """The next request may follow."""
        ...


class _Nobody:
    """In place of the event that the server sets for an application which waits for more of its request."""

    def set(self) -> None:
        """Nobody waits."""


class Exchange:
    """A request and what becomes of it. To the server it is what its own request cycle is: see ``listen``."""

    message_event = _Nobody()
    more_body = False

    def __init__(self, connection: Connection, path: str, headers: Headers, body: bytes, *, keep_alive: bool) -> None:
        self.path, self.headers, self.body = path, headers, body
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = False
        self._connection = connection

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Send the answer, whose own headers are ``head``, in one call, unless the client is gone."""
        self.response_complete, self.body = True, b""  # the connection keeps this until the next
        transport = self._connection.transport
        if self.disconnected or transport.is_closing():
            return
        first = _OK if status == HTTPStatus.OK else b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status))
        more = b"" if self.keep_alive else b"connection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        transport.write(b"".join((first, self._connection.own_head, head, more, length, body)))
        if not self.keep_alive:
            transport.close()
        self._connection.on_response_complete()


def head_of(headers: Headers) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode() if status in HTTPStatus.__members__.values() else b""
