"""Running an ASGI application on a port, with a clear word when the port is taken."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from noria.errors import Unavailable


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Unavailable when the address is taken or not ours."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            remedy="Choose another with --port, or end the process that has it.",
        ) from error
    return listener


def serve(application: Any, listener: socket.socket, *, ready: Callable[[int], None]) -> None:
    """Serve until a signal ends the process; ``ready`` is called with the port once requests are accepted."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(listener.getsockname()[1])

    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    Server(config).run(sockets=[listener])
