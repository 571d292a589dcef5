"""Artifacts of an MLflow server: through its proxy, or from a disk that this machine sees."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from noria.errors import NoriaError, Unavailable
from noria.interchange.rest import RestClient
from noria.interchange.side import File

_PROXIED = "mlflow-artifacts"


class MlflowArtifacts:
    """Reads and writes files by the URI that MLflow keeps of their root.

    ``folder`` is the one behind ``mlflow-artifacts:`` (the server's ``--artifacts-destination``), ``proxy`` the server
    that hands them out; with neither, such files are out of reach.
    """

    def __init__(self, *, proxy: RestClient | None = None, folder: Path | None = None) -> None:
        self._proxy = proxy
        self._folder = folder

    def files(self, uri: str) -> Sequence[File]:
        """The files below ``uri``, by path. Raises Unavailable when they cannot be reached from here."""
        place = self._place(uri)
        found = _on_disk(place) if isinstance(place, Path) else self._proxied(place, "")
        return sorted(found, key=lambda file: file.path)

    def read(self, uri: str, path: str) -> bytes:
        """One file below ``uri``."""
        place = self._place(uri)
        if isinstance(place, Path):
            return (place / path).read_bytes()
        return self._server(uri).download(f"{place}/{path}")

    def write(self, uri: str, path: str, content: bytes) -> None:
        """Put one file below ``uri``."""
        place = self._place(uri)
        if isinstance(place, str):
            return self._server(uri).upload(f"{place}/{path}", content)
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return None

    def _place(self, uri: str) -> Path | str:
        """A folder of this machine, or a path of the proxy."""
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme == _PROXIED:
            inside = urllib.parse.unquote(parts.path).strip("/")
            if self._folder is not None:
                return self._folder / inside
            self._server(uri)
            return inside
        if parts.scheme in ("", "file"):
            return Path(urllib.parse.unquote(parts.path))
        raise Unavailable(
            f"{uri} is in a store that Noria does not read", remedy="Copy its files with that store's own tool."
        )

    def _server(self, uri: str) -> RestClient:
        if self._proxy is None:
            raise Unavailable(
                f"{uri} is behind the MLflow server",
                remedy="Name the folder with --artifacts (the server's --artifacts-destination), or import by http.",
            )
        return self._proxy

    def _proxied(self, root: str, below: str) -> Iterator[File]:
        assert self._proxy is not None
        for entry in self._proxy.listing(f"{root}/{below}".rstrip("/")):
            path = f"{below}/{entry['path'].rsplit('/', 1)[-1]}".lstrip("/")
            if entry.get("is_dir"):
                yield from self._proxied(root, path)
            else:
                yield File(path, int(entry.get("file_size", 0)))


def _on_disk(folder: Path) -> Iterator[File]:
    """Every file below ``folder``; a run that logged none has no folder, but then the one above its experiment's is."""
    if not folder.is_dir() and not any(parent.is_dir() for parent in list(folder.parents)[1:3]):
        raise Unavailable(f"there is no folder {folder} on this machine", remedy="Run the import where its files are.")
    for path in folder.rglob("*"):
        if path.is_file():
            yield File(path.relative_to(folder).as_posix(), path.stat().st_size)


def reason(error: NoriaError | OSError) -> str:
    """Why a file was not copied, in one line."""
    return f"{error.message} ({error.remedy})" if isinstance(error, NoriaError) else str(error)
