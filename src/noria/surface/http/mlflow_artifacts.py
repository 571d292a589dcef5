"""The artifact proxy: files below the artifact root, by path; large ones in parts."""

from __future__ import annotations

import hashlib
import mimetypes
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from noria import audit
from noria.access import Permission
from noria.errors import InvalidInput, NoriaError, NotFound
from noria.registry.protection import require_open
from noria.store.blobs import BlobStore, Entry, clean_key
from noria.store.workspace import Workspace, artifact_uri
from noria.structs import read_by_threads
from noria.surface.http.bodies import read_body
from noria.surface.http.guard import identity_of

_PREFIXES = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")
_PARTS = ".parts"
_SIGNED_FOR = timedelta(minutes=15)
_MOST_PARTS = 10_000
_UPLOAD_ID = re.compile(r"[0-9a-f]{48}")
_ENDPOINTS: Mapping[str, tuple[str, list[str]]] = {
    "/artifacts": ("folder", ["GET"]),
    "/artifacts/{path:path}": ("file", ["GET", "PUT", "DELETE"]),
    "/mpu/create/{path:path}": ("create_upload", ["POST"]),
    "/mpu/complete/{path:path}": ("complete_upload", ["POST"]),
    "/mpu/abort/{path:path}": ("abort_upload", ["POST"]),
    "/mpu/parts/{upload_id}/{number:int}": ("part", ["PUT"]),
    "/presigned/{path:path}": ("presign", ["GET"]),
}
Handler = Callable[[Request], Awaitable[Response]]


def routes(workspace: Workspace, refuse: Callable[[NoriaError], Response]) -> list[BaseRoute]:
    """List, download, upload (whole or in parts), delete and sign below the artifact root."""
    proxy = _Proxy(workspace)

    def told(handler: Handler) -> Handler:
        async def respond(request: Request) -> Response:
            try:
                if handler != proxy.part:  # its address is its own credential
                    reads = request.method == "GET"
                    identity_of(request).require(Permission.READ if reads else Permission.WRITE)
                return await handler(request)
            except NoriaError as error:
                return refuse(error)

        return respond

    return [
        Route(prefix + path, told(getattr(proxy, name)), methods=methods)
        for prefix in _PREFIXES
        for path, (name, methods) in _ENDPOINTS.items()
    ]


@read_by_threads
class _CreateUpload(msgspec.Struct):
    path: str
    num_parts: int = 1


class _Part(msgspec.Struct):
    part_number: int


@read_by_threads
class _EndUpload(msgspec.Struct):
    path: str
    upload_id: str
    parts: list[_Part] = []


class _Proxy:
    """The handlers. What lies below a registered version's folder is read only."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._blobs: BlobStore = workspace.artifacts

    async def folder(self, request: Request) -> Response:
        """The entries of a folder; of a file, itself."""
        key = request.query_params.get("path", "")
        _check_escaped(key)
        return JSONResponse({"files": await run_in_threadpool(listing, self._blobs, key)})

    async def file(self, request: Request) -> Response:
        """Download, upload or delete one file."""
        key = _key(request)
        if request.method == "PUT":
            await self._receive(key, _chunks(request))
            return JSONResponse({})
        if request.method == "DELETE":
            await run_in_threadpool(self._delete, key)
            return JSONResponse({})
        size, pieces = await run_in_threadpool(self._open, key)
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        headers = {"content-length": str(size), "x-content-type-options": "nosniff"}
        return StreamingResponse(iterate_in_threadpool(pieces), media_type=kind, headers=headers)

    async def create_upload(self, request: Request) -> Response:
        """Begin an upload in parts: an address for each, which takes no other credential than its own name."""
        asked, key = await _decode(request, _CreateUpload), _key(request)
        if not 1 <= asked.num_parts <= _MOST_PARTS:
            raise InvalidInput(f"num_parts is {asked.num_parts}", remedy=f"Send 1 to {_MOST_PARTS}.")
        await run_in_threadpool(self._check_open, _target(key, asked.path))
        upload_id = secrets.token_hex(24)
        await run_in_threadpool(self._blobs.write, f"{_PARTS}/{upload_id}/begun", b"")
        address = f"{str(request.base_url).rstrip('/')}{_PREFIXES[0]}/mpu/parts/{upload_id}"
        numbers = range(1, asked.num_parts + 1)
        parts = [{"url": f"{address}/{number}", "part_number": number, "headers": {}} for number in numbers]
        return JSONResponse({"upload_id": upload_id, "credentials": parts})

    async def part(self, request: Request) -> Response:
        """Take one part."""
        upload_id, number = request.path_params["upload_id"], request.path_params["number"]
        await run_in_threadpool(self._check_upload, upload_id)
        await self._blobs.receive(f"{_PARTS}/{upload_id}/{number}", _chunks(request))
        return Response(headers={"etag": f'"{upload_id[:8]}-{number}"'})

    async def complete_upload(self, request: Request) -> Response:
        """Join the parts; the file appears whole."""
        asked, key = await _decode(request, _EndUpload), _key(request)
        target = _target(key, asked.path)
        await run_in_threadpool(self._check_upload, asked.upload_id)
        numbers = sorted(part.part_number for part in asked.parts)
        await self._receive(target, self._joined(asked.upload_id, numbers))
        await run_in_threadpool(self._blobs.delete, f"{_PARTS}/{asked.upload_id}")
        return JSONResponse({})

    async def abort_upload(self, request: Request) -> Response:
        """Forget the parts."""
        asked = await _decode(request, _EndUpload)
        await run_in_threadpool(self._check_upload, asked.upload_id)
        await run_in_threadpool(self._blobs.delete, f"{_PARTS}/{asked.upload_id}")
        return JSONResponse({})

    async def presign(self, request: Request) -> Response:
        """An address that downloads past this server, where the store is one that signs."""
        key = _key(request)
        size, _ = await run_in_threadpool(self._blobs.stream, key)
        url = await run_in_threadpool(self._blobs.sign, key, "GET", valid=_SIGNED_FOR)
        return JSONResponse({"url": url, "headers": {}, "file_size": size})

    async def _joined(self, upload_id: str, numbers: list[int]) -> AsyncIterator[bytes]:
        for number in numbers:
            _, pieces = await run_in_threadpool(self._blobs.stream, f"{_PARTS}/{upload_id}/{number}")
            async for piece in iterate_in_threadpool(pieces):
                yield piece

    async def _receive(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep a file that nothing registered forbids, neither when it begins to come nor once it is there whole."""

        digest, size = hashlib.sha256(), 0

        async def checked() -> AsyncIterator[bytes]:
            nonlocal size
            await run_in_threadpool(self._check_open, key)
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk
            await run_in_threadpool(self._check_open, key)

        await self._blobs.receive(key, checked())
        await run_in_threadpool(self._note_write, key, {"bytes": size, "sha256": digest.hexdigest()})

    def _note_write(self, key: str, detail: Mapping[str, object]) -> None:
        with self._workspace.database.append() as tx:
            audit.note(tx, "artifact.write", f"artifact:{key}", detail=detail)

    def _delete(self, key: str) -> None:
        """Nobody registers what is being deleted: the transaction holds all other writers off."""
        with self._workspace.database.write() as tx:
            require_open(tx, artifact_uri(key))
            audit.note(tx, "artifact.delete", f"artifact:{key}")
            self._blobs.delete(key)

    def _open(self, key: str) -> tuple[int, Iterable[bytes]]:
        try:
            return self._blobs.stream(key)
        except NotFound:
            if self._blobs.entries(key):
                raise InvalidInput(f"{key!r} is a folder", remedy="List it, and download its files.") from None
            raise

    def _check_upload(self, upload_id: str) -> None:
        if not _UPLOAD_ID.fullmatch(upload_id) or not self._blobs.entries(f"{_PARTS}/{upload_id}"):
            raise InvalidInput("there is no such upload", remedy="Begin one with mpu/create.")

    def _check_open(self, key: str) -> None:
        with self._workspace.database.read() as tx:
            require_open(tx, artifact_uri(clean_key(key)))


def listing(blobs: BlobStore, key: str, *, relative_to: str | None = None) -> list[dict[str, object]]:
    """The entries of the folder at ``key``: path (the name, or relative to another key), is_dir and file_size."""
    return [_document(entry, relative_to) for entry in blobs.entries(key) if entry.key != _PARTS]


def _document(entry: Entry, relative_to: str | None) -> dict[str, object]:
    path = PurePosixPath(entry.key)
    shown = path.name if relative_to is None else path.relative_to(clean_key(relative_to)).as_posix()
    document: dict[str, object] = {"path": shown, "is_dir": entry.is_folder}
    return document if entry.is_folder else document | {"file_size": entry.size}


def _key(request: Request) -> str:
    _check_escaped(request.path_params["path"])
    key = clean_key(request.path_params["path"])
    if not key or key.split("/")[0] == _PARTS:
        raise InvalidInput(f"{key!r} is not an artifact path", remedy="Name a file below the root.")
    return key


def _check_escaped(key: str) -> None:
    """Raises InvalidInput for a path that climbs once it is unescaped, however often: nobody means such a name."""
    while (plain := unquote(key)) != key:
        key = plain
        clean_key(key)


def _target(folder: str, path: str) -> str:
    """Where an upload in parts goes: the client sends its local file's path beside the folder."""
    return f"{folder}/{PurePosixPath(path).name}"


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces; Starlette raises when the client goes away, so that nothing half-sent is kept."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _decode(request: Request, kind: Any) -> Any:
    try:
        return msgspec.json.decode(await read_body(request) or b"{}", type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the request body cannot be read: {error}", remedy="See MLflow's REST API.") from None
