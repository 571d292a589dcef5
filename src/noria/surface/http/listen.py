"""Running an ASGI application on sockets, ended without losing a request."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from noria.surface.http import http2, library_log
from noria.surface.http.http1 import Config, Http1
from noria.surface.http.memory import keep_one_arena
from noria.surface.http.sockets import allow_many_connections, remove_unix, unix_paths
from noria.surface.http.tls import Renewal, Tls
from noria.surface.http.unread import UNREAD_AT_THE_END_SECONDS, UNREAD_SECONDS, seconds_silent

_DRAIN_SECONDS = 10.0
"""How long the connections may take to end, each with one more answer that says ``connection: close``."""
_IDLE_SECONDS = 1.0
"""A connection that has been idle this long is not about to ask: it is closed when the end begins."""
_HEADERS_SECONDS = 20.0
"""How long a connection may take to send the head of a request."""
_KEPT_SECONDS = 75.0
"""How long a connection may be idle."""
_SWEEP_SECONDS = 5.0
_TICKS_A_LOOK = 10
"""A certificate's files are looked at once a second."""


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
    library_log.take_over()
    keep_one_arena()
    allow_many_connections()
    if tls is not None:
        tls.check()
    config = Config(
        application,
        loop="uvloop",
        http=Http1,
        ws="none",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_config=None,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=10,
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None else str(tls.key),
    )
    config.load()
    if config.ssl is not None and http2.is_available():
        config.ssl.set_alpn_protocols(["h2", "http/1.1"])
    _Server(config, application, ready, more, tls).run(sockets=list(listeners))


class _Server(uvicorn.Server):
    """Uvicorn's server, which takes further sockets, closes silent connections, and drains before it ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        application: Any,
        ready: Callable[[int], None],
        more: socket.socket | None,
        tls: Tls | None,
    ) -> None:
        super().__init__(config)
        self._application, self._ready, self._more = application, ready, more
        self._renewal = None if tls is None else Renewal(tls)
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
                _abort_unread(connection, UNREAD_SECONDS)
                if isinstance(connection, http2.Http2):
                    connection.end_unread(self._swept, UNREAD_SECONDS)
        if counter % _TICKS_A_LOOK == 0:
            self._follow_certificate()
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
                _abort_unread(connection, UNREAD_AT_THE_END_SECONDS)
                _abort_half_asked(connection, UNREAD_AT_THE_END_SECONDS)
                _end_closed(connection)
            await asyncio.sleep(0.02)

    def _follow_certificate(self) -> None:
        if self._renewal is not None and self.config.ssl is not None and self._renewal.is_due():
            self._renewal.tls.load_into(self.config.ssl)

    def _connections(self) -> list[Http1 | http2.Http2]:
        return [one for one in self.server_state.connections if isinstance(one, Http1 | http2.Http2)]

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
        assert isinstance(self.config, Config)
        return Http1(self.config, self.server_state, self.lifespan.state)


def _abort_unread(connection: Http1 | http2.Http2, seconds: float) -> None:
    """End a connection whose client has taken nothing for so long of what it was sent."""
    if connection.seconds_without_progress(time.monotonic()) > seconds:
        connection.transport.abort()


def _abort_half_asked(connection: Http1 | http2.Http2, seconds: float) -> None:
    """End a connection whose client has sent nothing for so long of what it began to ask."""
    if connection.is_half_asked() and seconds_silent(connection.transport) > seconds:
        connection.transport.abort()


def _end_closed(connection: Http1 | http2.Http2) -> None:
    """End a connection that was closed, and all of it sent: TLS waits for a word that an idle client does not say."""
    if connection.transport.is_closing() and not connection.left():
        connection.transport.abort()
