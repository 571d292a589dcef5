"""A broker of Kafka's protocol that says no: to whoever logs in, or to whoever asks for a topic.

The mock cluster of librdkafka takes everybody. This one speaks as much of the protocol as it takes to be refused.
"""

from __future__ import annotations

import socketserver
import struct
import threading

_METADATA, _HANDSHAKE, _VERSIONS, _LOGIN = 3, 17, 18, 36
_VERSIONS_SPOKEN = [(0, 0, 7), (1, 0, 11), (_METADATA, 0, 4), (10, 0, 1), (_HANDSHAKE, 0, 1), (_VERSIONS, 0, 3)]
_VERSIONS_SPOKEN += [(22, 0, 1), (_LOGIN, 0, 0)]
_TOPIC_AUTHORIZATION_FAILED, _SASL_AUTHENTICATION_FAILED = 29, 58


class RefusingKafka:
    """One broker; ``address`` is where it listens. No login is right, and without one no topic may be used."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Connection)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(4):
            request = self.rfile.read(struct.unpack(">i", head)[0])
            kind, version, number = struct.unpack(">hhi", request[:8])
            answer = self._answer(kind, version, request)
            if answer is None:
                return
            self.wfile.write(struct.pack(">ii", len(answer) + 4, number) + answer)

    def _answer(self, kind: int, version: int, request: bytes) -> bytes | None:
        if kind == _VERSIONS and version >= 3:
            spoken = b"".join(struct.pack(">hhhx", *one) for one in _VERSIONS_SPOKEN)
            return struct.pack(">hB", 0, len(_VERSIONS_SPOKEN) + 1) + spoken + struct.pack(">ix", 0)
        if kind == _HANDSHAKE:
            return struct.pack(">hi", 0, 1) + _text("PLAIN")
        if kind == _LOGIN:
            return struct.pack(">h", _SASL_AUTHENTICATION_FAILED) + _text("Invalid username or password") + b"\0" * 4
        return self._metadata(request) if kind == _METADATA else None

    def _metadata(self, request: bytes) -> bytes:
        place = 10 + max(0, struct.unpack(">h", request[8:10])[0])  # behind the client's name
        topics = b""
        (count,) = struct.unpack(">i", request[place : place + 4])
        place += 4
        for _ in range(max(0, count)):
            end = place + 2 + struct.unpack(">h", request[place : place + 2])[0]
            topics += struct.pack(">h", _TOPIC_AUTHORIZATION_FAILED) + request[place:end] + struct.pack(">xi", 0)
            place = end
        host, port = self.server.server_address[:2]
        broker = struct.pack(">i", 1) + _text(str(host)) + struct.pack(">ih", port, -1)
        return struct.pack(">ii", 0, 1) + broker + struct.pack(">hii", -1, 1, max(0, count)) + topics


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
