"""The workspace as it is: the files of an output, and their hashes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from noria.data.dvc.hashes import Fingerprint, md5_of, now_ns
from noria.data.dvc.ignores import IGNORE_FILE
from noria.data.dvc.manifests import Manifest
from noria.data.dvc.objects import in_parallel
from noria.data.dvc.repository import DVC_FOLDER, Repository
from noria.errors import InvalidInput, Unavailable

Progress = Callable[[str, int, int], None]
Files = dict[str, os.stat_result]


def silent(_text: str, _done: int, _of: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Content:
    """What lies at a path: relative path → hash and size in bytes. A file itself has the one path ""."""

    manifest: Manifest
    sizes: dict[str, int]
    is_folder: bool

    @property
    def md5(self) -> str:
        """What DVC records for it."""
        return self.manifest.md5 if self.is_folder else self.manifest.files[""]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def files_of(repository: Repository, target: Path) -> Files:
    """Relative path → status of each file at ``target``; links to folders and what is ignored are left out.

    Raises InvalidInput for what is neither file nor folder, for a broken link or a loop of links.
    """
    status = _status(target)
    if stat.S_ISREG(status.st_mode):
        return {"": status}
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInput(f"{target} is neither a file nor a folder", remedy="Leave it out, or remove it.")
    return dict(_walk(repository, str(target), repository.name_of(target), ""))


def _walk(repository: Repository, folder: str, name: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """``name`` is the folder's path from the root, ``prefix`` that from the target."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name == IGNORE_FILE:
                raise InvalidInput(f"{folder} holds a {IGNORE_FILE}", remedy="Move it above the folder you track.")
            if repository.ignores.leaves_out(name, entry.name, is_folder=is_folder):
                continue
            if not is_folder:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    status = _status(Path(entry.path))
                if stat.S_ISREG(status.st_mode):
                    yield prefix + entry.name, status
                elif not stat.S_ISDIR(status.st_mode):
                    raise InvalidInput(f"{entry.path} is neither a file nor a folder", remedy="Remove it.")
            elif not (Path(entry.path) / DVC_FOLDER).is_dir():
                yield from _walk(repository, entry.path, f"{name}/{entry.name}", f"{prefix}{entry.name}/")


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise InvalidInput(f"{path} is a broken link", remedy="Mend or remove it.") from None
        raise InvalidInput(f"{path} does not exist", remedy="Check the name.") from None
    except OSError as error:
        if path.is_symlink():
            raise InvalidInput(f"{path} is a loop of links: {error.strerror}", remedy="Remove it.") from None
        raise Unavailable(f"{path}: {error.strerror}", remedy="Check its name and permissions.") from error


def content_of(repository: Repository, target: Path) -> Content:
    """What lies at ``target`` now; files that did not change since they were last hashed are not read.

    Raises as ``files_of``, and Unavailable for a file that cannot be read.
    """
    found = files_of(repository, target)
    prints = {path: Fingerprint.of(status) for path, status in found.items()}
    places = {path: place_of(target, path) for path in found}
    known = repository.index.lookup({places[path]: print_ for path, print_ in prints.items()})
    unknown = [path for path in found if places[path] not in known]
    at_ns = now_ns()
    hashed = in_parallel(lambda path: _hashed(places[path]), unknown)
    for path, md5 in zip(unknown, hashed, strict=True):
        known[places[path]] = md5
        repository.index.record(places[path], prints[path], md5, at_ns=at_ns)
    files = {path: known[places[path]] for path in found}
    return Content(Manifest(files), {path: status.st_size for path, status in found.items()}, "" not in found)


def place_of(target: Path, path: str) -> str:
    """The absolute path of one of the files at ``target``."""
    return f"{target}/{path}" if path else str(target)


def _hashed(path: str) -> str:
    try:
        return md5_of(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", remedy="Check its permissions.") from error
