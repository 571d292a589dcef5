"""The online key-value store: one packed row per key, in an embedded SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

_SCHEMA = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_MOST_VARIABLES = 30_000  # SQLite takes 32,766 in one statement


class KeyValueStore:
    """Bytes by key. One writer and many readers, each with a handle of its own; a batch is written as one unit.

    ``synchronous=NORMAL``: what a crash of the machine could lose is rebuilt by materializing again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(_SCHEMA)

    def put_many(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """Insert or replace all ``entries`` in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", entries)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def get(self, key: str) -> bytes | None:
        """The value of ``key``, or None."""
        row = self._connection.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of the ``keys`` that exist."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _MOST_VARIABLES):
            some = keys[start : start + _MOST_VARIABLES]
            marks = ",".join("?" * len(some))
            found.update(self._connection.execute(f"SELECT key, value FROM entries WHERE key IN ({marks})", some))
        return found

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
