"""HTTP/1.1: uvicorn's protocol, of which most requests take a shorter way, and which knows since when it waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from noria.surface.http import http2
from noria.surface.http.answer_writer import AnswerWriter
from noria.surface.http.busy_polling import BusyPolling
from noria.surface.http.exchange import Exchange, Headers, head_of
from noria.surface.http.unread import Unread, left_in

_MOST_HEAD_BYTES = 2**16
_MOST_AT_ONCE_BYTES = 2**18
"""What the loop reads at once: what it has behind a head that ended may be much, and is not all of the next head."""
_MOST_BEHIND = 16
"""So many requests may wait behind the one that is answered; while there are more, no others are read."""
_UPGRADING = (b"connection", b"upgrade", b"http2-settings")
"""Headers by which a client offers to go on in another protocol."""
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LINGER_SECONDS = 5.0
_LINGER_BYTES = 2**26
"""So much longer, and more, of a body may come that was answered before its end."""


class Config(uvicorn.Config):
    """Uvicorn's, and what all connections share."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.polling = BusyPolling()
        self._headers: Headers = []
        self._head = b""

    def head_of(self, headers: Headers) -> bytes:
        """What every answer begins to say; it is another list, with another date, once a second."""
        if headers is not self._headers:
            self._headers, self._head = headers, head_of(headers)
        return self._head


class Http1(HttpToolsProtocol, Unread):
    """Uvicorn's, which remembers since when it waits for the head of a request, and for anything at all.

    An application with a method ``take`` is offered each plain POST that arrives whole as an ``Exchange``; what it does
    not take, and all else, goes uvicorn's way. A connection that begins as HTTP/2 does is given to ``Http2``.
    """

    waits_since = idle_since = 0.0
    _is_new = True
    _has_said_all = _is_broken = _lingers = _is_crowded = False
    _head_bytes = _lingered_bytes = 0
    _held: list[bytes] | None = None
    """What has come of the body of a request that may be offered."""

    def __init__(self, config: Config, *given: Any, **more: Any) -> None:
        super().__init__(config, *given, **more)
        self._shared, self._polling = config, config.polling
        self._take: Callable[[Exchange], bool] | None = getattr(config.app, "take", None)

    @property
    def own_head(self) -> bytes:
        """See ``exchange.Connection``."""
        return self._shared.head_of(self.server_state.default_headers)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.waits_since = self.idle_since = time.monotonic()
        super().connection_made(transport)
        self._answers = AnswerWriter(transport, self._end)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            self._discard(data)
            return
        if self._is_new:
            self._is_new = False
            if data.startswith(http2.PREFACE) and http2.is_available():
                self._speak_http2(data)
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse()
            return
        if len(self.pipeline) > _MOST_BEHIND and not self.transport.is_closing():
            self._read_no_more()
        if self.waits_since:
            self._count_head(len(data))
        elif self._held is not None and not self.transport.is_closing():
            self._begin()  # the rest of it is still to come

    def eof_received(self) -> bool:  # type: ignore[override]  # what asyncio asks for
        """A client may say that it asks for no more and wait for its answers; uvicorn would close on it.

        One that went away looks the same, until it is answered. TLS knows no such half (``SSLProtocol``).
        """
        self._has_said_all = self._is_awaited() and self._held is None and self.scheme != "https"
        return self._has_said_all

    def _is_awaited(self) -> bool:
        """Whether a request that came whole is still to be answered."""
        return self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body)

    def _refuse(self) -> None:
        """What came is no HTTP. It is told so after the answer to what came before, or would be taken for that."""
        if self._is_awaited() and self._held is None:
            self._is_broken = True
        else:
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """As uvicorn's, but for the scope, which many requests do without: see ``_begin``."""
        self.waits_since = time.monotonic()
        self._polling.asked(self.waits_since)
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self.waits_since = self.idle_since = 0.0
        self._head_bytes = -_MOST_AT_ONCE_BYTES
        if self._take is not None and self._is_plain():
            self._held = []
        elif not self.parser.should_upgrade():
            self._begin()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        if self._held is not None:
            if self._offered(self._held[0] if len(self._held) == 1 else b"".join(self._held)):
                self._held = None
                return
            self._begin()
        elif self.parser.should_upgrade():
            return
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for a timer an answer: the server's sweep ends connections that are idle for long."""
        self.idle_since = time.monotonic()
        self._polling.answered(self.idle_since)
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self._is_crowded:
            self.flow.resume_reading()
        elif len(self.pipeline) <= 1:
            self._is_crowded = False
            self.transport.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._is_broken:
            self._refuse()
        elif self._has_said_all:
            self._answers.close()

    def _read_no_more(self) -> None:
        """Until what came is nearly answered; uvicorn alone would read on with each answer, and have no bound."""
        self._is_crowded, self.flow.read_paused = True, False  # which it would undo
        self.transport.pause_reading()

    def _decline(self, rest: bytes) -> None:
        """Answer over HTTP/1.1 what offers to go on in another protocol, as a server may (RFC 9110, 7.8).

        The parser stops at such a head: another one is given it without the offer, and what came behind it.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("This is no proxy.")
            return
        headers = [b"%s: %s\r\n" % one for one in self.headers if one[0] not in _UPGRADING]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, self.url, b"".join(headers), rest))

    def _end(self) -> None:
        """End the connection. A client that is cut off while it sends a body may never see the answer: it has a moment.

        A proxy before us would answer 502 in place of our 413.
        """
        if self.cycle is None or not self.cycle.more_body or self.transport.is_closing():
            self.transport.close()
            return
        self._lingers = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _discard(self, data: bytes) -> None:
        self._lingered_bytes += len(data)
        if self._lingered_bytes > _LINGER_BYTES:
            self.transport.close()

    def _count_head(self, more: int) -> None:
        """A head is still under way, or nothing is: it may not grow without end."""
        self._head_bytes += more
        if self._head_bytes > _MOST_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def _speak_http2(self, data: bytes) -> None:
        self.connections.discard(self)
        protocol = http2.Http2(self.app, self.server_state, self.transport, self.scheme or "http")
        self.transport.set_protocol(protocol)
        protocol.data_received(data)

    def _is_plain(self) -> bool:
        """Whether nothing about the request needs more than its headers and body, and nothing is before it."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not (self.expect_100_continue or self.flow.write_paused or self.parser.should_upgrade())
            and b"%" not in self.url
            and b"?" not in self.url
        )

    def _offered(self, body: bytes) -> bool:
        """Whether the application takes the request."""
        assert self._take is not None
        keep_alive = self.parser.should_keep_alive()
        exchange = Exchange(self, self.url.decode("latin-1"), self.headers, body, keep_alive=keep_alive)
        if not self._take(exchange):
            return False
        self.cycle = exchange  # type: ignore[assignment]  # it has all that is asked of a cycle
        return True

    def _begin(self) -> None:
        """Have the request go uvicorn's way, with what has come of its body."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # the scope has this list
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._answers  # type: ignore[assignment]  # all of it that a cycle uses
        held, self._held = self._held, None
        if held:
            super().on_body(b"".join(held))

    def left(self) -> int:
        """See ``Unread``."""
        return left_in(self.transport, is_tls=self.scheme == "https")

    def is_half_asked(self) -> bool:
        """Whether all that its client asks is still under way from there."""
        if self.cycle is None or self.pipeline:  # what came before it is answered first
            return False
        return self.cycle.more_body and not self.cycle.response_complete

    def close_if(self, since: float, before: float) -> None:
        """End the connection if it has waited since a time earlier than ``before``; never within a request."""
        if 0 < since < before and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
