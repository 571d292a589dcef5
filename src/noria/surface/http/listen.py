"""Running an ASGI application on sockets, ended without losing a request."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from noria.errors import InvalidConfig
from noria.surface.http import http2
from noria.surface.http.answer_writer import AnswerWriter
from noria.surface.http.busy_polling import BusyPolling
from noria.surface.http.exchange import Exchange, Headers, head_of
from noria.surface.http.memory import keep_one_arena
from noria.surface.http.sockets import remove_unix, unix_paths

_DRAIN_SECONDS = 10.0
"""How long the connections may take to end, each with one more answer that says ``connection: close``."""
_IDLE_SECONDS = 1.0
"""A connection that has been idle this long is not about to ask: it is closed when the end begins."""
_HEADERS_SECONDS = 20.0
"""How long a connection may take to send the head of a request."""
_KEPT_SECONDS = 75.0
"""How long a connection may be idle."""
_SWEEP_SECONDS = 5.0
_MOST_HEAD_BYTES = 2**16
_UPGRADING = (b"connection", b"upgrade", b"http2-settings")
"""Headers by which a client offers to go on in another protocol."""
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LINGER_SECONDS = 5.0
_LINGER_BYTES = 2**26
"""So much longer, and more, of a body may come that was answered before its end."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate chain and private key a server shows, as PEM files."""

    certificate: Path
    key: Path


def serve(
    application: Any,
    listeners: Sequence[socket.socket],
    *,
    ready: Callable[[int], None],
    tls: Tls | None = None,
    more: socket.socket | None = None,
) -> None:
    """Serve until a signal ends the process; ``ready`` is called with the port once requests are accepted.

    Further listening sockets may be sent over the Unix socket ``more``. An application with an attribute ``draining``
    has it set when the end begins: no new connections are taken, and each open one has a moment for a last request.
    Raises InvalidConfig when the certificate cannot be used.
    """
    keep_one_arena()
    config = _Config(
        application,
        loop="uvloop",
        http=_Protocol,
        ws="none",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=10,
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None else str(tls.key),
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise InvalidConfig(
            f"the TLS certificate or key cannot be used: {error}", remedy="Give PEM files that belong together."
        ) from error
    if config.ssl is not None and http2.is_available():
        config.ssl.set_alpn_protocols(["h2", "http/1.1"])
    _Server(config, application, ready, more).run(sockets=list(listeners))


class _Config(uvicorn.Config):
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


class _Protocol(HttpToolsProtocol):
    """Uvicorn's, which remembers since when it waits for the head of a request, and for anything at all.

    An application with a method ``take`` is offered each plain POST that arrives whole as an ``Exchange``; what it does
    not take, and all else, goes uvicorn's way. A connection that begins as HTTP/2 does is given to ``Http2``.
    """

    waits_since = idle_since = 0.0
    _is_new = True
    _has_said_all = _is_broken = _lingers = False
    _head_bytes = _lingered_bytes = 0
    _held: list[bytes] | None = None
    """What has come of the body of a request that may be offered."""

    def __init__(self, config: _Config, *given: Any, **more: Any) -> None:
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
        self._head_bytes = 0
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
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._is_broken:
            self._refuse()
        elif self._has_said_all:
            self._answers.close()

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

    def close_if(self, since: float, before: float) -> None:
        """End the connection if it has waited since a time earlier than ``before``; never within a request."""
        if 0 < since < before and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


class _Server(uvicorn.Server):
    """Uvicorn's server, which takes further sockets, closes silent connections, and drains before it ends."""

    def __init__(
        self, config: uvicorn.Config, application: Any, ready: Callable[[int], None], more: socket.socket | None
    ) -> None:
        super().__init__(config)
        self._application, self._ready, self._more = application, ready, more
        self._extra: list[socket.socket] = []
        self._swept = time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._more is not None:
            self._more.setblocking(False)
            asyncio.get_running_loop().add_reader(self._more.fileno(), self._take_socket)
        address = (sockets or [])[0].getsockname()
        self._ready(address[1] if isinstance(address, tuple) else 0)

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            for connection in self._connections():
                connection.close_if(connection.waits_since, self._swept - _HEADERS_SECONDS)
                connection.close_if(connection.idle_since, self._swept - _KEPT_SECONDS)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # a worker's socket is not its own: the pool has it, too
        paths = unix_paths(sockets or []) if self._more is None else set()
        if hasattr(self._application, "draining"):
            self._application.draining = True
            for server in self.servers:
                server.close()
            await self._drain()
        await super().shutdown([*(sockets or []), *self._extra])
        remove_unix(paths)

    async def _drain(self) -> None:
        """Wait until every connection has been answered with ``connection: close``, or has had nothing to ask."""
        for connection in self._connections():
            if isinstance(connection, http2.Http2):
                connection.leave()
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.server_state.connections and time.monotonic() < deadline and not self.force_exit:
            for connection in self._connections():
                connection.close_if(connection.idle_since, time.monotonic() - _IDLE_SECONDS)
            await asyncio.sleep(0.02)

    def _connections(self) -> list[_Protocol | http2.Http2]:
        return [one for one in self.server_state.connections if isinstance(one, _Protocol | http2.Http2)]

    def _take_socket(self) -> None:
        assert self._more is not None
        loop = asyncio.get_running_loop()
        try:
            _, descriptors, _, _ = socket.recv_fds(self._more, 16, 1)
        except OSError:
            descriptors = []
        if not descriptors:
            loop.remove_reader(self._more.fileno())  # whoever started us is gone
        for descriptor in descriptors:
            self._extra.append(socket.socket(fileno=descriptor))
            self._listening = loop.create_task(self._listen_on(self._extra[-1]))

    async def _listen_on(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.servers.append(
            await loop.create_server(self._new_connection, sock=listener, ssl=self.config.ssl, backlog=2048)
        )

    def _new_connection(self) -> asyncio.Protocol:
        assert isinstance(self.config, _Config)
        return _Protocol(self.config, self.server_state, self.lifespan.state)
