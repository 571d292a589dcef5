"""Blobs: artifacts by path, in a folder or an object store; written whole or not at all, checked by hash when read."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Protocol

from noria.errors import CorruptArtifact, InvalidInput, NotFound, NotServed, Unavailable

CHUNK_BYTES = 1024 * 1024
_LONGEST_NAME_BYTES = 250


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing shows: ``key`` below the artifact root, and the size in bytes of what is no folder."""

    key: str
    size: int | None

    @property
    def is_folder(self) -> bool:
        """Whether it holds other entries."""
        return self.size is None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: its key, its size in bytes, and a tag that changes when its content does."""

    key: str
    size: int
    tag: str


class BlobStore(Protocol):
    """Files addressed by a relative POSIX path, the key. Concurrent writers of a key: the last one wins.

    Every method raises InvalidInput for a key that leaves the root, and Unavailable when the store cannot be reached.
    """

    signs: bool
    """Whether ``sign`` gives addresses."""

    def write(self, key: str, content: bytes) -> None:
        """Store ``content`` under ``key``: a reader sees the old file or the new one, never half of it."""

    async def receive(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        """Like ``write``, for what arrives piece by piece and need not fit into memory."""

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """The bytes under ``key``. Raises NotFound, or CorruptArtifact when ``sha256`` is given and does not match."""

    def stream(self, key: str) -> tuple[int, Iterable[bytes]]:
        """The size in bytes under ``key``, and the content in pieces. Raises NotFound."""

    def entries(self, key: str) -> list[Entry]:
        """What lies directly below the folder ``key``, by name; nothing when there is no such folder."""

    def files(self, key: str) -> list[StoredFile]:
        """The file at ``key``, or all files below that folder at any depth, by key; nothing when there is neither."""

    def open(self, key: str) -> IO[bytes]:
        """The file at ``key``, to read from any position. Raises NotFound."""

    def take(self, key: str, source: Path) -> None:
        """Like ``write``, for a local file, which is gone afterwards."""

    def delete(self, key: str) -> None:
        """Remove the file, or the folder with all below it. Raises NotFound."""

    def put_folder(self, key: str, source: Path) -> None:
        """Copy a folder in, replacing what was there; call it before anything refers to ``key``."""

    def fetch(self, key: str) -> Path:
        """A local folder or file with what lies at ``key``, to be read only. Raises NotFound."""

    def sign(self, key: str, method: str, *, valid: timedelta) -> str:
        """A URL with which anyone may GET or PUT ``key`` for a while. Raises NotServed where there is none."""


class FolderBlobs:
    """Blobs in a folder of this machine."""

    signs = False

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def write(self, key: str, content: bytes) -> None:
        """See BlobStore."""
        write_atomically(self._path(key), content)

    async def receive(self, key: str, chunks: AsyncIterable[bytes]) -> None:
        """See BlobStore."""
        staged = await asyncio.to_thread(_Staged, self._path(key))
        try:
            async for chunk in chunks:
                await asyncio.to_thread(staged.write, chunk)
            await asyncio.to_thread(staged.commit)
        finally:
            staged.discard()

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """See BlobStore."""
        target = self._path(key)
        if not target.is_file():
            raise no_blob(key)
        return checked(key, target.read_bytes(), sha256)

    def stream(self, key: str) -> tuple[int, Iterable[bytes]]:
        """See BlobStore."""
        target = self._path(key)
        if not target.is_file():
            raise no_blob(key)
        return target.stat().st_size, _pieces(target)

    def entries(self, key: str) -> list[Entry]:
        """See BlobStore."""
        folder = self._path(key)
        if not folder.is_dir():
            return []
        found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(_STAGING)]
        return [
            Entry(path.relative_to(self.root).as_posix(), None if path.is_dir() else path.stat().st_size)
            for path in found
        ]

    def files(self, key: str) -> list[StoredFile]:
        """See BlobStore. The tag is the time of the last change."""
        target = self._path(key)
        found = [target] if target.is_file() else sorted(path for path in target.rglob("*") if path.is_file())
        kept = [(path.relative_to(self.root), path.stat()) for path in found if not path.name.startswith(_STAGING)]
        return [StoredFile(path.as_posix(), stat.st_size, str(stat.st_mtime_ns)) for path, stat in kept]

    def open(self, key: str) -> IO[bytes]:
        """See BlobStore."""
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise no_blob(key) from None

    def take(self, key: str, source: Path) -> None:
        """See BlobStore. On one file system the file is moved, not copied."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file:
            os.fsync(file.fileno())
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(source, target)

    def _copy(self, source: Path, target: Path) -> None:
        staged = _Staged(target)
        try:
            for piece in _pieces(source):
                staged.write(piece)
            staged.commit()
        finally:
            staged.discard()
        source.unlink()

    def delete(self, key: str) -> None:
        """See BlobStore."""
        target = self._path(key)
        if target.is_dir() and target != self.root:
            shutil.rmtree(target)
        elif target.is_file():
            target.unlink()
        else:
            raise no_blob(key)

    def put_folder(self, key: str, source: Path) -> None:
        """See BlobStore. The folder appears complete or not at all."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=_STAGING))
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)

    def fetch(self, key: str) -> Path:
        """See BlobStore."""
        target = self._path(key)
        if not target.exists():
            raise no_blob(key)
        return target

    def sign(self, key: str, method: str, *, valid: timedelta) -> str:
        """See BlobStore: files of this machine have no URL."""
        raise NotServed(
            f"{method} of {key!r} cannot be signed ({valid} asked): the artifacts lie in a folder of the server",
            remedy="Go through the artifact proxy, or keep artifacts in an object store.",
        )

    def _path(self, key: str) -> Path:
        target = (self.root / clean_key(key)).resolve()
        if not target.is_relative_to(self.root):
            raise InvalidInput(f"artifact path {key!r} leaves the artifact root", remedy="Use a relative path.")
        return target


_STAGING = ".staging-"
_STALE_SECONDS = 3600


def open_blobs(url: str, *, folder: Path, cache: Path) -> BlobStore:
    """The store that ``url`` names: ``s3://``, ``gs://``, ``az://``, a local path, or ``folder`` when it is empty.

    What an object store holds is fetched into ``cache``. Raises InvalidInput for another scheme, MissingExtra.
    """
    scheme, separator, rest = url.partition("://")
    if not url:
        return FolderBlobs(folder)
    if not separator or scheme == "file":
        return FolderBlobs(Path(rest if separator else url))
    if scheme not in ("s3", "gs", "az"):
        raise InvalidInput(f"{url!r} is no place for artifacts", remedy="Use a folder, s3://, gs:// or az://.")
    from noria.store.object_blobs import ObjectBlobs

    return ObjectBlobs(url, cache)


def clean_key(key: str) -> str:
    """``key`` without empty parts. Raises InvalidInput for one that leaves the root or that no store can keep."""
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if key.startswith("/") or ".." in parts or set("\0\\") & set(key) or not all(map(_can_be_kept, parts)):
        raise InvalidInput(
            f"{key[:200]!r} is not an artifact path",
            remedy=f"Use a relative path that stays below the root, with names of at most {_LONGEST_NAME_BYTES} bytes.",
        )
    return "/".join(parts)


def _can_be_kept(name: str) -> bool:
    try:
        return len(name.encode()) <= _LONGEST_NAME_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def no_blob(key: str) -> NotFound:
    """The error for a key that holds nothing."""
    return NotFound(f"no artifact at {key!r}", remedy="List the folder to see what is stored.")


def checked(key: str, content: bytes, sha256: str | None) -> bytes:
    """``content``, once it has the hash expected. Raises CorruptArtifact."""
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptArtifact(
            f"artifact {key!r} does not match its recorded hash {sha256[:12]}",
            remedy="Restore the file from a backup or register the model again.",
        )
    return content


def write_atomically(target: Path, content: bytes) -> None:
    """Write beside ``target``, sync, rename over it."""
    staged = _Staged(target)
    try:
        staged.write(content)
        staged.commit()
    finally:
        staged.discard()


def discard_stale(folder: Path) -> None:
    """Remove what writers left in ``folder`` that were killed: staged files that nobody has written to for an hour."""
    for staged in folder.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):  # its writer may be about to rename it
            if time.time() - staged.stat().st_mtime > _STALE_SECONDS:
                staged.unlink()


class _Staged:
    """A file beside ``target`` that takes its place, synced, at ``commit``. Raises Unavailable for a full disk."""

    def __init__(self, target: Path) -> None:
        self._target = target
        with self._clear():
            if target.is_dir():
                raise InvalidInput(f"{target.name!r} is a folder", remedy="Choose another name for the file.")
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, staging = tempfile.mkstemp(dir=target.parent, prefix=_STAGING)
        self._staging, self._file = Path(staging), os.fdopen(handle, "wb")

    def write(self, content: bytes) -> None:
        """Add ``content``."""
        with self._clear():
            self._file.write(content)

    def commit(self) -> None:
        """Make what was written durable, then visible."""
        with self._clear():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._staging.replace(self._target)

    def discard(self) -> None:
        """Leave nothing of what was not committed."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._staging.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _clear(self) -> Iterator[None]:
        name = self._target.name
        try:
            yield
        except (NotADirectoryError, FileExistsError):
            raise InvalidInput(f"a folder of {name!r} is a file", remedy="Choose another folder.") from None
        except OSError as error:
            raise Unavailable(f"cannot write {name!r}: {error.strerror}", remedy="Check the free space.") from error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def folder_digest(folder: Path) -> str:
    """SHA-256 over the relative paths and contents of every file below ``folder``, in path order."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
