"""Objects by their MD5 in a folder, as DVC lays out its cache and its remotes: ``files/md5/ab/cdef…``."""
# ruff: noqa: PTH101, PTH108, PTH116, PTH123 - paths are strings here: pathlib costs more than the disk

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from noria.data.dvc.dvc_files import FOLDER_SUFFIX
from noria.data.dvc.hashes import Fingerprint, HashIndex, copy_and_hash, md5_of, md5_of_pieces, new_md5, now_ns
from noria.data.dvc.links import LinkKind, link
from noria.data.dvc.manifests import Manifest, parse_manifest
from noria.data.dvc.staging import Staging
from noria.errors import Conflict, CorruptArtifact, NotFound
from noria.processors import processors

LAYOUT = "files/md5"
_SHARE = 64
_READ_ONLY = 0o444
_T = TypeVar("_T")
_R = TypeVar("_R")


def key_of(md5: str) -> str:
    """Where an object lies below the root of a cache or remote."""
    return f"{LAYOUT}/{md5[:2]}/{md5[2:]}"


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that went into the cache, and its fingerprint when its content was read."""

    md5: str
    print_: Fingerprint
    read_at_ns: int


class Objects:
    """The objects below ``root``. Each appears whole, read-only and under its own hash, or not at all."""

    def __init__(self, root: Path, index: HashIndex, staging: Staging) -> None:
        self.root = root
        self.index = index
        self.staging = staging
        self._base = f"{root}/{LAYOUT}/"

    def path(self, md5: str) -> str:
        """Where the object is, or would be."""
        return f"{self._base}{md5[:2]}/{md5[2:]}"

    def take(self, source: str, kind: LinkKind) -> Taken:
        """Put a file into the cache. Raises Conflict when it changes meanwhile."""
        at_ns = now_ns()
        before = os.stat(source)
        with self.staging.file() as staged:
            md5 = _TAKERS[kind](source, staged)
            after = os.stat(source)
            if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
                raise Conflict(f"{source} changed while it was added", remedy="Add it again when its writer is done.")
            self.staging.settle(staged, self.path(md5))
        return Taken(md5, Fingerprint.of(after), at_ns)

    def put(self, md5: str, pieces: Iterable[bytes]) -> None:
        """Store content that has that MD5. Raises CorruptArtifact when it has another."""
        digest = new_md5()
        with self.staging.file() as staged:
            with open(staged, "xb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                os.fchmod(file.fileno(), _READ_ONLY)
            if digest.hexdigest() != md5.removesuffix(FOLDER_SUFFIX):
                raise CorruptArtifact(
                    f"what arrived as {md5} has another hash", remedy="Try again; if it stays so, push it anew."
                )
            self.staging.settle(staged, self.path(md5))

    def manifest(self, md5: str) -> Manifest:
        """The manifest of a folder. Raises NotFound, CorruptArtifact."""
        try:
            content = Path(self.path(md5)).read_bytes()
        except FileNotFoundError:
            raise missing([md5]) from None
        if md5_of_pieces([content]) != md5.removesuffix(FOLDER_SUFFIX):
            raise corrupt([self.path(md5)])
        return parse_manifest(md5, content)

    def present(self, md5s: Iterable[str]) -> dict[str, os.stat_result]:
        """Those that exist, whatever they hold, and their files' status."""
        found = {}
        for md5 in md5s:
            with contextlib.suppress(FileNotFoundError):
                found[md5] = os.stat(self.path(md5))
        return found

    def intact(self, md5s: Iterable[str]) -> tuple[set[str], set[str]]:
        """Of those that exist, the ones whose content has its hash, and the ones damaged."""
        prints = {md5: Fingerprint.of(status) for md5, status in self.present(md5s).items()}
        known = self.index.lookup({self.path(md5): print_ for md5, print_ in prints.items()})
        unknown = [md5 for md5 in prints if known.get(self.path(md5)) != md5]
        hashed = dict(zip(unknown, in_parallel(lambda md5: md5_of(self.path(md5)), unknown), strict=True))
        damaged = {md5 for md5, actual in hashed.items() if actual != md5.removesuffix(FOLDER_SUFFIX)}
        for md5 in hashed.keys() - damaged:
            self.index.record(self.path(md5), prints[md5], md5)
        return prints.keys() - damaged, damaged

    def vouch(self, md5s: Iterable[str]) -> None:
        """Remember that these, just written, are intact."""
        for md5, status in self.present(md5s).items():
            self.index.record(self.path(md5), Fingerprint.of(status), md5)

    def require(self, md5s: Iterable[str]) -> None:
        """Raises NotFound when one is missing, CorruptArtifact when one does not have its hash."""
        wanted = set(md5s)
        sound, damaged = self.intact(wanted)
        if damaged:
            raise corrupt([self.path(md5) for md5 in sorted(damaged)])
        if absent := sorted(wanted - sound):
            raise missing(absent)


def _copied(source: str, staged: str) -> str:
    with open(source, "rb", buffering=0) as given, open(staged, "xb", buffering=0) as made:
        md5 = copy_and_hash(given, made)
        os.fchmod(made.fileno(), _READ_ONLY)
    return md5


def _cloned(source: str, staged: str) -> str:
    """A clone is hashed itself, so that it is what its name says whatever becomes of the source."""
    if link(source, staged, (LinkKind.REFLINK, LinkKind.COPY)) is LinkKind.COPY:
        os.unlink(staged)
        return _copied(source, staged)
    os.chmod(staged, _READ_ONLY)
    return md5_of(staged)


def _linked(source: str, staged: str) -> str:
    if link(source, staged, (LinkKind.HARDLINK, LinkKind.COPY)) is LinkKind.COPY:
        os.unlink(staged)
        return _copied(source, staged)
    os.chmod(staged, _READ_ONLY)
    return md5_of(staged)


_TAKERS = {
    LinkKind.REFLINK: _cloned,
    LinkKind.HARDLINK: _linked,
    LinkKind.SYMLINK: _copied,
    LinkKind.COPY: _copied,
}


def missing(md5s: Sequence[str]) -> NotFound:
    """The error for objects that the cache lacks."""
    return NotFound(
        f"{len(md5s)} of the objects recorded are not in the cache, such as {md5s[0]}",
        remedy="Fetch them with `noria data pull`.",
    )


def corrupt(paths: Sequence[str]) -> CorruptArtifact:
    """The error for objects whose content is not what their name says."""
    return CorruptArtifact(
        f"{len(paths)} of the cache's objects do not match their hashes",
        details=paths[:5],
        remedy="Delete these files, then fetch them again with `noria data pull`.",
    )


def in_parallel(work: Callable[[_T], _R], items: Sequence[_T], *, workers: int = 0) -> list[_R]:
    """``work`` of each item, in their order; the first error ends it."""
    workers = min(workers or processors(), len(items))
    if workers < 2:
        return [work(item) for item in items]
    share = max(1, min(_SHARE, len(items) // (workers * 4)))
    parts = [items[start : start + share] for start in range(0, len(items), share)]
    with ThreadPoolExecutor(workers) as pool:
        try:
            return [result for part in pool.map(lambda part: [work(item) for item in part], parts) for result in part]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
