"""The artifact proxy: files below the artifact root, by path."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from noria.errors import NoriaError, NotFound
from noria.store.blobs import BlobStore
from noria.store.workspace import Workspace

_PREFIXES = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")


def routes(workspace: Workspace, refuse: Callable[[NoriaError], Response]) -> list[BaseRoute]:
    """List, download, upload and delete below the artifact root."""
    blobs = workspace.artifacts

    async def one(request: Request) -> Response:
        try:
            path = blobs.path(request.path_params["path"])
            if request.method == "PUT":
                blobs.write(request.path_params["path"], await request.body())
                return JSONResponse({})
            if not path.is_file():
                raise NotFound(f"no artifact at {request.path_params['path']!r}", remedy="List the folder first.")
            if request.method == "DELETE":
                path.unlink()
                return JSONResponse({})
            media = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            return FileResponse(path, media_type=media, headers={"x-content-type-options": "nosniff"})
        except NoriaError as error:
            return refuse(error)

    def several(request: Request) -> Response:
        try:
            return JSONResponse({"files": listing(blobs, request.query_params.get("path", ""))})
        except NoriaError as error:
            return refuse(error)

    return [
        route
        for prefix in _PREFIXES
        for route in (
            Route(f"{prefix}/artifacts", several),
            Route(f"{prefix}/artifacts/{{path:path}}", one, methods=["GET", "PUT", "DELETE"]),
        )
    ]


def listing(blobs: BlobStore, key: str, *, relative_to: str | None = None) -> list[dict[str, object]]:
    """The entries of the folder at ``key``: path (the name, or relative to another key), is_dir and file_size."""
    folder = blobs.path(key)
    base = folder if relative_to is None else blobs.path(relative_to)
    if not folder.is_dir():
        return []
    return [_entry(path, base) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _entry(path: Path, base: Path) -> dict[str, object]:
    entry: dict[str, object] = {"path": path.relative_to(base).as_posix(), "is_dir": path.is_dir()}
    return entry if path.is_dir() else entry | {"file_size": path.stat().st_size}
