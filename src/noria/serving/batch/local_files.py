"""The files below a folder of this machine, as a shell finds them: links to files and to folders are followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from noria.errors import InvalidInput
from noria.store.blobs import StoredFile


def local_files(key: str, is_wanted: Callable[[str], bool]) -> list[StoredFile]:
    """The file at ``/key``, or all below that folder whose names, and those of the folders between, are wanted.

    A link to nothing is a file of no bytes and without a tag. Raises InvalidInput for links that lead in a circle,
    OSError for a folder that this user may not read: what lies in it would be missing.
    """
    top = Path("/", key)
    if not top.is_dir():
        return [_stored(top)] if top.is_file() or top.is_symlink() else []
    found = [_stored(path) for path in _below(top, (), is_wanted)]
    return sorted(found, key=lambda file: file.key.split("/"))


def _below(folder: Path, above: tuple[tuple[int, int], ...], is_wanted: Callable[[str], bool]) -> Iterator[Path]:
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        raise InvalidInput(f"{folder} is a link to a folder that it lies in", remedy="Remove the link.")
    with os.scandir(folder) as entries:
        wanted = [entry for entry in entries if is_wanted(entry.name)]
    for entry in wanted:
        path = Path(entry.path)
        if entry.is_dir():
            yield from _below(path, (*above, here), is_wanted)
        elif entry.is_file() or (entry.is_symlink() and not path.exists()):
            yield path


def _stored(path: Path) -> StoredFile:
    key = path.as_posix().lstrip("/")
    try:
        stat = path.stat()
    except FileNotFoundError:
        return StoredFile(key, 0, "")
    return StoredFile(key, stat.st_size, str(stat.st_mtime_ns))
