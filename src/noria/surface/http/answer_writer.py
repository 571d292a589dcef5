"""Sending answers in as few system calls as they take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_COPIED_BYTES = 2**16
"""Less is put behind an answer's head, more is sent beside it."""


class AnswerWriter:
    """A connection as an answer sees it: the head leaves with the first of the body, in one system call, not two.

    Each call costs more than reading the request does, and wakes the client. A head that nothing follows at once leaves
    by itself.
    """

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self._transport, self._end = transport, end
        self._head = b""
        self._loop = asyncio.get_running_loop()
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send, a head a moment later."""
        if self.is_closing():  # of requests one behind the other, only the last is told that the client is gone
            return
        head, self._head = self._head, b""
        if head and len(data) < _COPIED_BYTES:
            self._transport.write(head + data)
        elif head:
            self._transport.writelines([head, data])
        elif data.startswith(b"HTTP/"):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """End the connection once all is sent."""
        self._flush()
        self._end()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)
