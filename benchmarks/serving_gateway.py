"""Our gateway as ``noria serve`` runs it, on a world in a folder: ``python -m serving_gateway FOLDER --port PORT``.

``--bare`` leaves log and metrics out, ``--shared`` lets another process have the same port, and ``--no-op`` puts in the
gateway's place an application that reads the body and answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from serving_world import World

from noria.surface.http.gateway import Gateway
from noria.surface.http.listen import serve
from noria.surface.http.sockets import bind

_ANSWER = (
    b'{"prediction_id":"f2a1c6a0d2b58a0d9c31000000000001","prediction":1,"model":"forest","model_version":"1",'
    b'"variant":"champion","route_revision":1,"probability":0.91,"confidence":"very_high","score":0.91}'
)
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]


async def no_op(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, answer what a prediction's answer would be as long as."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


def bare(gateway: Gateway) -> Gateway:
    """The gateway, without log and metrics."""
    gateway.plane.recorder.scored = lambda *_: None  # type: ignore[method-assign]
    return gateway


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    for flag in ("bare", "shared", "no-op"):
        parser.add_argument(f"--{flag}", action="store_true")
    given = parser.parse_args()
    application: Any = no_op
    if not given.no_op:
        application = Gateway(World(given.folder).options)
    if given.bare:
        bare(application)
    serve(
        application,
        [bind("127.0.0.1", given.port, shared=given.shared)],
        ready=lambda _port: print("accepts requests", flush=True),
    )


if __name__ == "__main__":
    main()
