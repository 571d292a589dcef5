"""A gateway's request: its headers, its body of bounded size and time, decompressed, and how long it may take."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from noria.errors import InvalidInput, NoriaError, Unauthenticated
from noria.serving import DataPlane
from noria.serving.live import Live

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

LARGE_BYTES = 64 * 1024
"""From here on a body is read and written beside the event loop."""
WORTH_COMPRESSING_BYTES = 1400
_BODY_SECONDS = 30.0
_PIECE_BYTES = 1024
"""What is decompressed at once: of zstd that may become 32 MiB, before anybody can say that it is too much."""
_Made = TypeVar("_Made")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


_beside = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")


async def beside(size: int, work: Callable[..., _Made], *given: Any) -> _Made:
    """``work`` on a body of ``size`` bytes: on a large one beside the event loop, and one after the other.

    More threads would not be faster, since Python runs one at a time, but hold the values of all bodies at once.
    """
    if size < LARGE_BYTES:
        return work(*given)
    return await asyncio.get_running_loop().run_in_executor(_beside, work, *given)


class TooLarge(InvalidInput):
    """The body is larger than a gateway takes."""


class TooSlow(InvalidInput):
    """The body did not arrive in time."""


def key_of(own: str, authorization: str) -> str:
    """The key in an x-api-key header, or in ``authorization`` as a Bearer token; empty without one."""
    scheme, _, token = authorization.partition(" ")
    return (own or (token if scheme.lower() == "bearer" else "")).strip()


def admitted(plane: DataPlane, request: Request, name: str | None = None) -> Live:
    """The deployment a request is for, by its path or by ``name``.

    Raises Unauthenticated when that one wants a key and the request has none of its keys, and what ``find`` raises.
    """
    live = plane.find(name or request.model)
    if live.table.key_hashes and not live.admits(request.key):
        raise _wants_key(f"deployment {live.table.deployment!r}", request)
    return live


def check_any_key(plane: DataPlane, request: Request) -> None:
    """For what is told of no deployment by name. Raises Unauthenticated when no deployment admits the request."""
    if request.model is not None:
        admitted(plane, request)
    elif not any(live.admits(request.key) for live in plane.deployments):
        raise _wants_key("every deployment here", request)


def admitting(plane: DataPlane, request: Request) -> Sequence[Live]:
    """The deployment a request is for, or all that admit it. Raises as ``admitted``."""
    if request.model is not None:
        return [admitted(plane, request)]
    check_any_key(plane, request)
    return [live for live in plane.deployments if live.admits(request.key)]


def _wants_key(who: str, request: Request) -> Unauthenticated:
    found = "another" if request.key else "none"
    return Unauthenticated(
        f"{who} wants a key, and the request has {found}",
        remedy="Send it as x-api-key, or as a Bearer token; `noria deploy keys add` makes one.",
    )


class ClientGone(NoriaError):
    """Nobody waits for the answer any more."""

    code = "client_gone"


@dataclass(slots=True)
class Request:
    """One HTTP request. ``model`` is the name in its path, None where there is none.

    Of a header that was sent twice, ``headers`` have the last.
    """

    method: str
    path: str
    model: str | None
    headers: Mapping[bytes, bytes]
    body: bytes = b""

    def header(self, name: bytes) -> str:
        """The value of a header, empty when it was not sent."""
        value = self.headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.header(b"content-type").partition(";")[0].strip().lower()

    @property
    def key(self) -> str:
        """The key a request came with: as x-api-key, or as a Bearer token; empty without one."""
        return key_of(self.header(b"x-api-key"), self.header(b"authorization"))

    @property
    def timeout(self) -> float | None:
        """Seconds the client allows, by its ``timeout`` header: a number of seconds, or with ms, us or s behind it.

        Raises InvalidInput for anything else.
        """
        if b"timeout" not in self.headers:
            return None
        text = self.header(b"timeout").strip().lower()
        if not text:
            return None
        unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
        try:
            seconds = -1.0 if "_" in text else float(text.removesuffix(unit)) * _UNITS[unit or "s"]
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < 86_400:
            raise InvalidInput(f"{text!r} is no timeout", remedy="Send seconds, such as 0.5, or 250ms.")
        return seconds


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, largest: int) -> bytes:
    """The whole body, decompressed.

    Raises TooLarge above ``largest`` bytes, by the announced length before it is read, TooSlow when it does not arrive
    in half a minute, ClientGone when the connection ends first, InvalidInput for what cannot be decompressed.
    """
    announced, encoding = headers.get(b"content-length", b"0"), headers.get(b"content-encoding", b"")
    if announced.isdigit() and int(announced) > largest:
        raise _too_large(largest)
    message = await receive()
    if message.get("more_body", False):
        try:
            # wait_for would leave the body in a cycle with its error, which the collector seldom looks for here
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _rest(message, receive, largest)
        except TimeoutError:
            raise TooSlow(
                f"the request body did not arrive in {_BODY_SECONDS:g} seconds", remedy="Send it at once."
            ) from None
    elif message["type"] == "http.disconnect":
        raise _gone()
    else:
        body = message.get("body", b"")
    if not encoding or encoding == b"identity":
        return body
    if len(body) < LARGE_BYTES:
        return decompress(body, encoding.decode("latin-1"), largest)
    return await asyncio.to_thread(decompress, body, encoding.decode("latin-1"), largest)


async def _rest(message: MutableMapping[str, Any], receive: Receive, largest: int) -> bytes:
    parts = [message.get("body", b"")]
    size = len(parts[0])
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _gone()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > largest:
            raise _too_large(largest)
    return b"".join(parts)


def decompress(body: bytes, encoding: str, largest: int) -> bytes:
    """The body behind a content encoding: gzip, deflate or zstd. Raises InvalidInput, and TooLarge before it grows."""
    coding = encoding.strip().lower()
    if coding in ("gzip", "x-gzip", "deflate"):
        machines: Callable[[], Any] = partial(zlib.decompressobj, zlib.MAX_WBITS | 32)
    elif coding == "zstd":
        import zstandard

        machines = zstandard.ZstdDecompressor().decompressobj
    else:
        raise InvalidInput(f"content-encoding {coding!r} is not known here", remedy="Use gzip, deflate or zstd.")
    try:
        return _decompressed(machines, body, largest)
    except TooLarge:
        raise
    except Exception as error:  # each library has errors of its own
        raise InvalidInput(f"the body is no {coding}: {error}", remedy="Send it whole, or without encoding.") from None


def _decompressed(machines: Callable[[], Any], body: bytes, largest: int) -> bytes:
    """All that stands in ``body``, which may be one stream behind the other. Raises EOFError where one has no end."""
    parts, size, machine = [], 0, machines()
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        while piece:
            machine = machines() if machine.eof else machine
            parts.append(machine.decompress(piece))
            size += len(parts[-1])
            if size > largest:
                raise _too_large(largest)
            piece = machine.unused_data if machine.eof else b""
    if not machine.eof:
        raise EOFError("it has no end")
    return b"".join(parts)


def compress(body: bytes, accepted: bytes) -> tuple[bytes, Sequence[tuple[bytes, bytes]]]:
    """The body in an encoding the client accepts, and the headers that say so; none when it stays as it is."""
    offers = {_offer(part) for part in accepted.decode("latin-1").lower().split(",")}
    if "zstd" in offers:
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(body), _encoded_as(b"zstd")
    if "gzip" in offers:
        return gzip.compress(body, compresslevel=1), _encoded_as(b"gzip")
    return body, ()


def _offer(part: str) -> str:
    """The encoding of one part of ``accept-encoding``; empty where its weight is 0, which means that it is not."""
    encoding, _, weight = part.replace(" ", "").partition(";")
    return "" if weight.startswith("q=0") and not weight[3:].strip(".0") else encoding


def _encoded_as(encoding: bytes) -> Sequence[tuple[bytes, bytes]]:
    return (b"content-encoding", encoding), (b"vary", b"accept-encoding")


def _too_large(largest: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {largest / 2**20:g} MiB", remedy="Send fewer rows a request.")


def _gone() -> ClientGone:
    return ClientGone("the client ended the connection in the middle of its request")
