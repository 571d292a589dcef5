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
    def own_headers(self) -> Headers:
        """What every answer of the server says, such as the date."""
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

    def __init__(self, connection: Connection, path: str, headers: Headers, body: bytes, *, keep_alive: bool) -> None:
        self.path, self.headers, self.body = path, headers, body
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = False
        self._connection = connection

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the answer, in one call, unless the client is gone."""
        self.response_complete, self.body = True, b""  # the connection keeps this until the next
        transport = self._connection.transport
        if self.disconnected or transport.is_closing():
            return
        first = _OK if status == HTTPStatus.OK else b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status))
        parts = [first]
        for name, value in (*self._connection.own_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        end = b"content-length: %d\r\n\r\n" if self.keep_alive else b"connection: close\r\ncontent-length: %d\r\n\r\n"
        parts += (end % len(body), body)
        transport.write(b"".join(parts))
        if not self.keep_alive:
            transport.close()
        self._connection.on_response_complete()


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode() if status in HTTPStatus.__members__.values() else b""
