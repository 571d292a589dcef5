"""A receiver of webhooks: a real HTTP server in a thread."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

_PATIENCE_SECONDS = 30


class Received(NamedTuple):
    """One request that arrived."""

    headers: dict[str, str]
    body: str

    @property
    def name(self) -> str:
        """The event's name."""
        document = json.loads(self.body)
        return f"{document['entity']}.{document['action']}"

    @property
    def data(self) -> dict[str, object]:
        """What the event tells."""
        return json.loads(self.body)["data"]


class Receiver:
    """Keeps what arrives and answers with ``status``. ``down`` and ``up`` close and open its port."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 200
        self._arrived = threading.Condition()
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        """Where to send."""
        return f"http://127.0.0.1:{self._port}/hook?key=1"

    def wait_for(self, count: int) -> list[Received]:
        """What arrived, once it is ``count`` or more."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.received) >= count, _PATIENCE_SECONDS)
            assert arrived, f"{len(self.received)} of {count}: {[item.name for item in self.received]}"
            return list(self.received)

    def up(self) -> None:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def down(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _keep(self, item: Received) -> None:
        with self._arrived:
            self.received.append(item)
            self._arrived.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver._keep(Received({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler
