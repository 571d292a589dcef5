"""MD5 of files, and an index of those known, so that a file nobody touched is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

CHUNK_BYTES = 1024 * 1024
_PIECES_AHEAD = 16
_RACY_NS = 20_000_000
_BATCH = 500
_SCHEMA = """CREATE TABLE IF NOT EXISTS hashes (
    path TEXT PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, md5 TEXT
) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes when a file's content does.

    Times are nanoseconds since 1970. ``ctime_ns`` catches tools that set back the modification time; it is 0 for a
    file of several names, where making another one changes it.
    """

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Fingerprint:
        """The fingerprint of a file with that status."""
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns if found.st_nlink == 1 else 0)

    def is_settled(self, at_ns: int) -> bool:
        """Whether a change after ``at_ns`` would show: clocks of file systems tick a few times in 20 ms."""
        return at_ns - max(self.mtime_ns, self.ctime_ns) > _RACY_NS


class HashIndex:
    """Hashes by absolute path and fingerprint, in a SQLite file that may be deleted at any time.

    Not thread-safe: one thread looks up and records. Where the file cannot be written, nothing is remembered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[tuple[str, int, int, int, int, str]] = []

    def lookup(self, prints: Mapping[str, Fingerprint]) -> dict[str, str]:
        """The MD5 of each path whose fingerprint is as it was when it was recorded."""
        known: dict[str, str] = {}
        paths = [path for path in prints if _storable(path)]
        with self._connection() as connection:
            for start in range(0, len(paths), _BATCH):
                batch = paths[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                for path, *numbers, md5 in connection.execute(f"SELECT * FROM hashes WHERE path IN ({marks})", batch):
                    if Fingerprint(*numbers) == prints[path]:
                        known[path] = md5
        return known

    def record(self, path: str, print_: Fingerprint, md5: str, *, at_ns: int | None = None) -> None:
        """Remember the MD5 of a file that was read at ``at_ns``; without it, of one that only we write."""
        if _storable(path) and (at_ns is None or print_.is_settled(at_ns)):
            row = (path, print_.inode, print_.size, print_.mtime_ns, print_.ctime_ns, md5)
            self._pending.append(row)

    def flush(self) -> None:
        """Write what was recorded."""
        with self._connection() as connection:
            connection.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", self._pending)
        self._pending.clear()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The database, as far as it can be used: what it does not tell is hashed again, which is all that is lost.

        A damaged one is removed, for the next to be sound.
        """
        try:
            connection = self._open()
        except (sqlite3.OperationalError, OSError):  # a folder that cannot be written, a full disk
            connection = _with_table(":memory:")
        try:
            with connection:
                yield connection
        except sqlite3.OperationalError:
            pass
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)
        finally:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _with_table(self._path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)
            return _with_table(self._path)


def _with_table(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _storable(path: str) -> bool:
    return path.isprintable() or not any("\ud800" <= character <= "\udfff" for character in path)


def md5_of(path: str) -> str:
    """The MD5 of a file's content."""
    digest = new_md5()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - for small files pathlib costs more than the disk
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def copy_and_hash(source: FileIO, target: FileIO) -> str:
    """Copy what ``source`` holds and tell its MD5, reading it once.

    So the copy is what was hashed, whatever happens to the source meanwhile.
    """
    digest = new_md5()
    piece = source.read(CHUNK_BYTES)
    if len(piece) < CHUNK_BYTES:
        while piece:
            digest.update(piece)
            _write(target, piece)
            piece = source.read(CHUNK_BYTES)
        return digest.hexdigest()
    with ThreadPoolExecutor(1) as second:  # hashes on one core, in order, what is written on the other
        ahead: deque[Future[None]] = deque()
        while piece:
            ahead.append(second.submit(digest.update, piece))
            if len(ahead) > _PIECES_AHEAD:
                ahead.popleft().result()
            _write(target, piece)
            piece = source.read(CHUNK_BYTES)
    return digest.hexdigest()


def _write(target: FileIO, piece: bytes) -> None:
    written = target.write(piece)
    while written < len(piece):
        written += target.write(memoryview(piece)[written:])


def md5_of_pieces(pieces: Iterable[bytes]) -> str:
    """The MD5 of content that is at hand."""
    digest = new_md5()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def now_ns() -> int:
    """The time by the clock that file systems use, in nanoseconds since 1970."""
    return time.time_ns()


def new_md5() -> hashlib._Hash:
    """A digest to feed."""
    return hashlib.md5(usedforsecurity=False)
