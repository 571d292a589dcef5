"""HTTP/2 for the ASGI application of a server: one connection, many requests at once. ``h2`` reads and makes frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import unquote

import structlog

from noria.surface.http.unread import Unread, left_in

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every connection of HTTP/2 begins with."""

_MOST_STREAMS = 100
_WINDOW_BYTES = 2**20
"""How much of a body may be under way before it is read."""
_MOST_DISCARDED_BYTES = 2**24
_MOST_RESETS = 200
"""So many requests a client may take back, or half of all: to begin and cancel them costs it nothing."""
_NOT_IN_HTTP2 = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"))

_log = structlog.get_logger()

Message = MutableMapping[str, Any]
Headers = Sequence[tuple[bytes, bytes]]


class Application(Protocol):
    """An ASGI application."""

    def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> Awaitable[None]:
        """Answer one request."""
        ...


class State(Protocol):
    """What a server shares among its connections; uvicorn's ``ServerState`` is one."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: list[tuple[bytes, bytes]]


def is_available() -> bool:
    """Whether the library is installed."""
    try:
        import h2  # noqa: F401
    except ImportError:
        return False
    return True


class Http2(asyncio.Protocol, Unread):
    """One connection; what follows its preface is given to ``data_received``, the preface included.

    ``waits_since`` and ``idle_since`` are when it began to wait, on the monotonic clock; 0 while it does not.
    """

    waits_since = 0.0

    def __init__(self, application: Application, state: State, transport: asyncio.Transport, scheme: str) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.settings import SettingCodes, Settings

        self.transport = transport
        self.idle_since = time.monotonic()
        self._application, self._state, self._scheme = application, state, scheme
        self._streams: dict[int, _Stream] = {}
        self._asked = self._resets = self._discarded = 0
        self._ending = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._frames = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        limits = {SettingCodes.MAX_CONCURRENT_STREAMS: _MOST_STREAMS, SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES}
        self._frames.local_settings = Settings(client=False, initial_values=limits)
        self._frames.initiate_connection()
        self._frames.increment_flow_control_window(_WINDOW_BYTES)
        state.connections.add(self)

    # what the loop and the server tell

    def data_received(self, data: bytes) -> None:
        """Frames from the client."""
        from h2.exceptions import ProtocolError

        try:
            for event in self._frames.receive_data(data):
                self._take(event)
        except ProtocolError:  # the last frame that is sent says which
            self._ending = True
        self._flush()
        if self._ending and not self._streams:
            self._end()

    def pause_writing(self) -> None:
        """The client is slower than we are; until it has caught up it is not listened to, or answers would pile up."""
        self._writable.clear()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever the reason is
        """The client is gone."""
        self._state.connections.discard(self)
        self._ending = True
        self._writable.set()
        for stream in self._streams.values():
            stream.lose()

    def shutdown(self) -> None:
        """End the connection once what was asked is answered."""
        self._ending = True
        if not self._streams:
            self._end()

    def leave(self) -> None:
        """End the connection when what is asked is answered; one that asks nothing has a moment to ask once more."""
        self._ending = bool(self._streams)

    def left(self) -> int:
        """See ``Unread``; what the client has not opened its windows for waits, too."""
        waiting = sum(stream.unsent for stream in self._streams.values())
        return waiting + left_in(self.transport, is_tls=self._scheme == "https")

    def end_unread(self, now: float, seconds: float) -> None:
        """End each stream of whose answer nothing was taken for so long, as far as the looks so far tell."""
        from h2.errors import ErrorCodes
        from h2.exceptions import ProtocolError

        for stream in self._streams.values():
            if stream.lost or stream.seconds_without_progress(now) <= seconds:
                continue
            with suppress(ProtocolError):  # after its client's farewell nothing but one of ours may be sent
                self._frames.reset_stream(stream.number, ErrorCodes.CANCEL)
            stream.lose()
        self._flush()

    def is_half_asked(self) -> bool:
        """Whether all that its client asks is still under way from there."""
        return bool(self._streams) and not any(stream.ended for stream in self._streams.values())

    def close_if(self, since: float, before: float) -> None:
        """End the connection if it has waited since a time earlier than ``before``; never within a request."""
        if 0 < since < before and not self._streams:
            self._end()

    # frames

    def _take(self, event: object) -> None:
        from h2 import events

        if isinstance(event, events.RequestReceived):
            self._begin(event.stream_id, event.headers)
        elif isinstance(event, events.DataReceived):
            if event.stream_id in self._streams:
                self._streams[event.stream_id].feed(event.data, event.flow_controlled_length)
            else:
                self._discard(event.stream_id, event.flow_controlled_length)
        elif isinstance(event, events.StreamEnded):
            if event.stream_id in self._streams:
                self._streams[event.stream_id].end()
        elif isinstance(event, events.StreamReset):
            self._reset(event.stream_id)
        elif isinstance(event, events.WindowUpdated | events.RemoteSettingsChanged):
            for stream in self._streams.values():
                stream.may_send.set()
        elif isinstance(event, events.ConnectionTerminated):
            self._ending = True

    def _begin(self, number: int, headers: Headers) -> None:
        self.idle_since = 0.0
        self._asked += 1
        stream = self._streams[number] = _Stream(self, number, _scope(headers, self._scheme, self.transport))
        task = asyncio.get_running_loop().create_task(self._answer(stream))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _discard(self, number: int, size: int) -> None:
        """Let the rest of a body come that was answered early: not all clients look at answers before it is sent."""
        from h2.errors import ErrorCodes

        self._discarded += size
        self._frames.acknowledge_received_data(size, number)
        if self._discarded > _MOST_DISCARDED_BYTES:
            self._frames.reset_stream(number, ErrorCodes.NO_ERROR)

    async def _answer(self, stream: _Stream) -> None:
        from h2.exceptions import ProtocolError

        try:
            await self._application(stream.scope, stream.receive, stream.send)
        except ProtocolError:
            stream.lose()  # the client broke the connection off in the middle
        except Exception as error:
            _log.error("request_failed", path=stream.scope["path"], exc_info=error)
        self._finish(stream)

    def _finish(self, stream: _Stream) -> None:
        """Its application has returned."""
        from h2.errors import ErrorCodes
        from h2.exceptions import ProtocolError

        self._streams.pop(stream.number, None)
        if not self._streams:
            self.idle_since = time.monotonic()
        if self.transport.is_closing():
            return
        try:
            stream.give_back()
            if not stream.answered:
                self._frames.reset_stream(stream.number, ErrorCodes.INTERNAL_ERROR)
        except ProtocolError:
            pass  # the client has ended it already
        self._flush()
        if self._ending and not self._streams:
            self._end()

    def _reset(self, number: int) -> None:
        from h2.errors import ErrorCodes

        if number in self._streams:
            self._streams[number].lose()
        self._resets += 1
        if self._resets > max(_MOST_RESETS, self._asked // 2):
            self._frames.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._ending = True
            self._flush()
            self.transport.close()

    def send_head(self, stream: _Stream, status: int, headers: Headers, *, whole: bool) -> None:
        """The status and headers of an answer, ``whole`` without a body."""
        sent = [(name, value) for name, value in headers if name not in _NOT_IN_HTTP2]
        fields = [(b":status", b"%d" % status), *self._state.default_headers, *sent]
        self._frames.send_headers(stream.number, fields, end_stream=whole)
        self._flush()

    async def send_body(self, stream: _Stream, body: bytes, *, last: bool) -> None:
        """More of an answer, or the ``last`` of it, as fast as the client takes it."""
        view = memoryview(body)
        while not stream.lost:
            await self._writable.wait()
            room = min(self._frames.local_flow_control_window(stream.number), self._frames.max_outbound_frame_size)
            part, view = view[:room], view[room:]
            stream.unsent = len(view)
            ends = last and not view
            if part or ends:
                self._frames.send_data(stream.number, part.tobytes(), end_stream=ends)
                self._flush()
            if not view:
                return
            if not room:
                stream.may_send.clear()
                await stream.may_send.wait()

    def acknowledge(self, stream: _Stream, size: int) -> None:
        """So much of a body was read; as much may follow."""
        self._frames.acknowledge_received_data(size, stream.number)
        self._flush()

    def _flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self._frames.data_to_send())

    def _end(self) -> None:
        from h2.exceptions import ProtocolError

        try:
            self._frames.close_connection()
            self._flush()
        except ProtocolError:
            pass  # it is ended already
        self.transport.close()


class _Stream(Unread):
    """One request and its answer, as an application sees them."""

    def __init__(self, connection: Http2, number: int, scope: Message) -> None:
        self.number, self.scope = number, scope
        self.lost = self.ended = self.answered = False
        self.may_send, self._came = asyncio.Event(), asyncio.Event()
        self._connection = connection
        self._body = bytearray()
        self._unread = self.unsent = 0
        self._head: Message | None = None

    def left(self) -> int:
        """See ``Unread``."""
        return self.unsent

    def feed(self, data: bytes, size: int) -> None:
        """A part of the body; ``size`` of the window it took."""
        self._body += data
        self._unread += size
        self._came.set()

    def end(self) -> None:
        """The request is whole."""
        self.ended = True
        self._came.set()

    def lose(self) -> None:
        """Nobody waits for the answer any more."""
        self.lost = True
        self._came.set()
        self.may_send.set()

    def give_back(self) -> None:
        """Let as much follow on the connection as came, of a request taken back too: the others share the room."""
        unread, self._unread = self._unread, 0
        if unread:
            self._connection.acknowledge(self, unread)

    async def receive(self) -> Message:
        """See ASGI."""
        if not (self.ended or self.lost):
            await self._came.wait()
        self._came.clear()
        if self.lost or self.answered:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self.give_back()
        return {"type": "http.request", "body": body, "more_body": not self.ended}

    async def send(self, message: Message) -> None:
        """See ASGI; the head leaves with the first of the body."""
        if self.lost or self.answered:
            return
        if message["type"] == "http.response.start":
            self._head = message
            return
        body, last = message.get("body", b""), not message.get("more_body", False)
        if self._head is not None:
            head, self._head = self._head, None
            self.answered = self.scope["method"] == "HEAD" or (last and not body)
            self._connection.send_head(self, head["status"], list(head["headers"]), whole=self.answered)
        if not self.answered:
            await self._connection.send_body(self, body, last=last)
            self.answered = last


def _scope(headers: Headers, scheme: str, transport: asyncio.Transport) -> Message:
    """What ASGI says of a request."""
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    path, _, query = pseudo.get(b":path", b"/").partition(b"?")
    plain = [(name, value) for name, value in headers if name[:1] != b":"]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "method": pseudo[b":method"].decode("latin-1"),
        "scheme": scheme,
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", pseudo.get(b":authority", b"")), *plain],
        "client": _address(transport.get_extra_info("peername")),
        "server": _address(transport.get_extra_info("sockname")),
        "state": {},
    }


def _address(found: Any) -> tuple[str, int] | None:
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
