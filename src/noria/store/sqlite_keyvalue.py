"""Online rows in an embedded SQLite file, the default: nothing to run, any number of processes on one machine."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from threading import RLock
from urllib.parse import quote

from noria.errors import Unavailable
from noria.store.stamps import STAMP_BYTES

_SCHEMA = "CREATE TABLE IF NOT EXISTS online_rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_PUT = f"""
INSERT INTO online_rows VALUES {{marks}} ON CONFLICT (key) DO UPDATE SET value = excluded.value
WHERE substr(excluded.value, 1, {STAMP_BYTES}) >= substr(value, 1, {STAMP_BYTES})
"""
_ROWS_A_STATEMENT = 500  # twice as fast as one by one
_KEYS_A_STATEMENT = 30_000  # SQLite takes 32,766 variables
_CACHE_KIB = 65_536
_MOST_KNOWN_BYTES = 16 * 2**20
_ENTRY_BYTES = 250  # of a key, a value's object and their place, beside what the value holds
_BUSY_SECONDS = 30


class SqliteKeyValues:
    """One table in WAL mode: readers never wait for a writer, writers wait for each other.

    ``synchronous=NORMAL``: what a crash of the machine could lose is rebuilt by materializing again. An ``immutable``
    file is read without locks, and nothing is written beside it. What was read is kept until anybody writes: entities
    that are asked for often cost a third.
    """

    def __init__(self, path: Path, *, immutable: bool = False, create: bool = True) -> None:
        self.path: Path | None = path
        self._name = str(path)
        self._lock = RLock()  # sqlite3 shares a transaction between the threads of a connection
        self._forget(None)
        if immutable:
            with self._telling("opened"):
                self._connection = _connect_immutable(path)
            return
        with self._telling("opened"):
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif not path.exists():
                raise no_store(path)
            with _alone(path):
                self._connection = _connect(path, create=create)

    def put_newer(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        rows = iter(entries)
        with self._lock, self._telling("written"), self._transaction() as connection:
            before = connection.total_changes
            while some := list(islice(rows, _ROWS_A_STATEMENT)):
                marks = ",".join(["(?,?)"] * len(some))
                connection.execute(_PUT.format(marks=marks), list(chain.from_iterable(some)))
            return connection.total_changes - before

    def update(self, keys: Sequence[bytes], change: Callable[[list[bytes | None]], list[bytes]]) -> None:
        with self._lock, self._telling("written"), self._transaction() as connection:
            starts = range(0, len(keys), _KEYS_A_STATEMENT)
            values = [value for start in starts for value in self._get(keys[start : start + _KEYS_A_STATEMENT])]
            rows = zip(keys, change(values), strict=True)
            connection.executemany("INSERT OR REPLACE INTO online_rows VALUES (?, ?)", rows)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) <= _KEYS_A_STATEMENT:
            try:
                with self._lock:
                    return self._recalled(keys)
            except sqlite3.DatabaseError as error:
                raise self._unavailable("read", error) from error
        with self._lock, self._telling("read"), self._transaction("DEFERRED"):
            starts = range(0, len(keys), _KEYS_A_STATEMENT)
            return [value for start in starts for value in self._get(keys[start : start + _KEYS_A_STATEMENT])]

    def _recalled(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values as they are now; only those are read that were not since the last write."""
        version = self._version()
        if version != self._known_version or self._known_bytes > _MOST_KNOWN_BYTES:
            self._forget(version)
        known = self._known
        if unknown := [key for key in keys if key not in known]:
            values = self._get(unknown)
            if self._version() != version:  # somebody wrote meanwhile: those known are of another moment
                return self._get(keys)
            known.update(zip(unknown, values, strict=True))
            self._known_bytes += len(unknown) * _ENTRY_BYTES + sum(map(len, filter(None, values)))
        return list(map(known.__getitem__, keys))

    def _forget(self, version: int | None) -> None:
        self._known: dict[bytes, bytes | None] = {}
        self._known_bytes, self._known_version = 0, version

    def _version(self) -> int:
        """Another one whenever another connection has written."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [value for (value,) in self._connection.execute(_select(len(keys)), keys)] if keys else []

    def delete(self, prefix: bytes) -> int:
        with self._lock, self._telling("written"), self._transaction() as connection:
            if not prefix:
                return connection.execute("DELETE FROM online_rows").rowcount
            return connection.execute(
                "DELETE FROM online_rows WHERE key >= ? AND substr(key, 1, ?) = ?", (prefix, len(prefix), prefix)
            ).rowcount

    def copy(self, prefixes: Sequence[bytes], target: Path) -> None:
        """Write every key that begins with one of ``prefixes`` into a new file, by key and not in WAL mode."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with self._lock, self._telling("copied"), closing(sqlite3.connect(target, isolation_level=None)) as copied:
            copied.execute(_SCHEMA)
            copied.execute("BEGIN")
            for prefix in sorted(prefixes):
                rows = self._connection.execute(
                    "SELECT key, value FROM online_rows WHERE key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
                    (prefix, len(prefix), prefix),
                )
                copied.executemany("INSERT INTO online_rows VALUES (?, ?)", rows)
            copied.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        self._connection.execute(f"BEGIN {kind}")
        self._forget(None)  # SQLite's count is of what others write
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk may have ended it already
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _telling(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._unavailable(done, error) from error

    def _unavailable(self, done: str, error: Exception) -> Unavailable:
        return Unavailable(
            f"the online store {self._name} cannot be {done}: {error}",
            remedy="Check the disk's space and the file's permissions; one that is damaged may be deleted, and is "
            "filled again by materializing.",
        )


@lru_cache(maxsize=64)
def _select(count: int) -> str:
    """A row a key, in their order: faster than one statement each, and than IN, which sorts them."""
    marks = ",".join(["(?)"] * count)
    found = "SELECT value FROM online_rows WHERE key = wanted.key"
    return f"WITH wanted(key) AS (VALUES {marks}) SELECT ({found}) FROM wanted"


def no_store(path: Path) -> Unavailable:
    """The error for a store that is to be read and does not exist."""
    return Unavailable(
        f"the online store {path} is not there",
        remedy="Say under `features.online` where it is, put it back, or materialize features, which makes it.",
    )


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute(_SCHEMA)
    return connection


def _connect_immutable(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: switching a new file to WAL does not wait for another that does the same."""
    with path.with_name(f"{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
