"""Taking in a request's body, and no more of it than is wanted."""

from __future__ import annotations

from starlette.requests import Request

from noria.errors import InvalidInput

LARGEST_BYTES = 32 * 1024 * 1024
"""The most that one request may send, but for artifacts."""


async def read_body(request: Request, *, largest: int = LARGEST_BYTES) -> bytes:
    """The body in bytes. Raises InvalidInput as soon as more than ``largest`` bytes have come."""
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > largest:
            raise InvalidInput(f"the request body is larger than {largest:,} bytes", remedy="Send less in one request.")
    return b"".join(pieces)
