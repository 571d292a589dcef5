"""Clients that take nothing of what they are sent, or send no more of what they began: found by looking now and then.

Sending costs nothing more for it. A client that is merely slow takes some of it from one look to the next.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import struct
import termios

UNREAD_SECONDS = 60.0
"""So long may an answer wait for a client that takes nothing of it."""
UNREAD_AT_THE_END_SECONDS = 2.0
"""The same while the server ends, which others wait for; and so long may a client say nothing within its request."""
_TCP_INFO_BYTES, _LAST_RECEIVED = 56, 52
"""How much of Linux's ``tcp_info`` is asked for, and where it has the milliseconds since anything last came."""


class Unread:
    """Of one connection, or stream of it: how much waits for its client, and since when that has not become less."""

    _left = 0
    _stuck_since = 0.0

    def left(self) -> int:
        """Bytes that wait to be sent."""
        raise NotImplementedError

    def seconds_without_progress(self, now: float) -> float:
        """How long none of it was taken, as far as the looks so far tell; ``now`` is on the monotonic clock."""
        left = self.left()
        if not left or left < self._left:
            self._stuck_since = 0.0
        elif not self._stuck_since:
            self._stuck_since = now
        self._left = left
        return now - self._stuck_since if self._stuck_since else 0.0


def left_in(transport: asyncio.Transport, *, is_tls: bool) -> int:
    """Bytes that wait to be sent, and of those that the system has taken over, how many the client has not.

    TLS does not say of all that wait.
    """
    waiting = transport.get_write_buffer_size()
    return waiting + _left_in_system(transport) if waiting or is_tls else 0


def _left_in_system(transport: asyncio.Transport) -> int:
    found, connection = array.array("i", [0]), transport.get_extra_info("socket")
    try:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, found)
    except (OSError, AttributeError, ValueError):  # not every system tells, nor of a connection that is lost
        return 0
    return found[0]


def seconds_silent(transport: asyncio.Transport) -> float:
    """How long ago anything last came from the client; 0 where the system does not tell."""
    connection = transport.get_extra_info("socket")
    try:
        found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return float(struct.unpack_from("I", found, _LAST_RECEIVED)[0]) / 1000
    except (OSError, AttributeError, ValueError, struct.error):  # nor of a Unix socket
        return 0.0
