"""Blobs: files under one root, written whole or not at all, checked by hash when read."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from noria.errors import CorruptArtifact, InvalidInput, NotFound


class BlobStore:
    """Files addressed by a relative POSIX path. Writes are atomic; concurrent writers of a path: last one wins."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, key: str) -> Path:
        """Where ``key`` lives on this machine. Raises InvalidInput for a path that leaves the root."""
        target = (self.root / key).resolve()
        if not target.is_relative_to(self.root):
            raise InvalidInput(f"artifact path {key!r} leaves the artifact root", remedy="Use a relative path.")
        return target

    def write(self, key: str, content: bytes) -> Path:
        """Store ``content`` under ``key``: a reader sees the old file or the new one, never half of it."""
        target = self.path(key)
        write_atomically(target, content)
        return target

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """The bytes under ``key``; when ``sha256`` is given they must match it."""
        target = self.path(key)
        if not target.is_file():
            raise NotFound(f"no artifact at {key!r}", remedy="List the folder to see what is stored.")
        content = target.read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise CorruptArtifact(
                f"artifact {key!r} does not match its recorded hash {sha256[:12]}",
                remedy="Restore the file from a backup or register the model again.",
            )
        return content

    def put_folder(self, key: str, source: Path) -> None:
        """Copy a folder in; it appears under ``key`` complete or not at all, replacing what was there."""
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".staging-"))
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)


def write_atomically(target: Path, content: bytes) -> None:
    """Write beside ``target``, sync, rename over it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, staging = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(staging).replace(target)
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise


def folder_digest(folder: Path) -> str:
    """SHA-256 over the relative paths and contents of every file below ``folder``, in path order."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
