"""What a refused request held is free at once: in a gateway the garbage collector comes seldom."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence
from typing import Any

from noria.surface.http import cloudevents
from noria.surface.http.gateway import Gateway
from serving.gateway_world import REQUEST, World

STRANGER = REQUEST | {"entities": {"carrier": "??", "origin": "EWR"}}
EVENT = {"specversion": "1.0", "id": "1", "source": "/test", "type": "asked", "data": {"features": [1]}}
BATCH_OF_EVENTS = [(b"content-type", cloudevents.BATCH.encode())]
NO_TIME = [(b"timeout", b"0.000001")]


async def refused(gateway: Gateway, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> int:
    """The status of the answer to a body that comes in pieces, of which the first may be all."""
    pieces = [body[start : start + 2**20] for start in range(0, len(body), 2**20)]
    messages = iter([{"type": "http.request", "body": one, "more_body": one is not pieces[-1]} for one in pieces])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await gateway({"type": "http", "method": "POST", "path": path, "headers": list(headers)}, receive, send)
    return int(sent[0]["status"])


def test_a_refused_request_leaves_nothing_to_the_garbage_collector(world: World):
    requests = [
        (413, "/predict", b"x" * (2**24 + 1), []),
        (400, "/predict", b"x" * 2**21 + b"x", []),
        (400, "/predict", json.dumps(REQUEST | {"features": {}}).encode(), []),
        (404, "/predict", json.dumps(STRANGER).encode(), []),
        (400, "/predict/batch", json.dumps({"instances": [REQUEST, STRANGER, {}]}).encode(), []),
        (504, "/predict/batch", json.dumps({"instances": [REQUEST]}).encode(), NO_TIME),
        (400, "/predict", json.dumps([EVENT, EVENT]).encode(), BATCH_OF_EVENTS),
    ]

    async def left_behind() -> dict[str, int]:
        gateway = Gateway(world.settings)
        world.deploy(1, world.add_model(1))
        await gateway._files.check()
        gc.freeze()  # what is loaded need not be gone through each time
        found = {}
        for status, path, body, headers in requests:
            assert await refused(gateway, path, body, headers) == status  # the first of a kind imports
            gc.collect()
            await refused(gateway, path, body, headers)
            found[f"{status} {path}"] = gc.collect()
        gateway.plane.close()
        return found

    gc.disable()
    try:
        found = asyncio.run(left_behind())
    finally:
        gc.unfreeze()
        gc.enable()
    assert not any(found.values()), found
