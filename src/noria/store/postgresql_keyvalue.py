"""Online rows in PostgreSQL: for those who run one already and want no second server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from noria.errors import MissingExtra, Unavailable
from noria.store.stamps import STAMP_BYTES

_SCHEMA = "CREATE TABLE IF NOT EXISTS online_rows (key bytea PRIMARY KEY, value bytea NOT NULL)"
_UPDATE_LOCK = 7_305_804_403
_SCHEMA_LOCK = 7_305_804_402  # any number, the same everywhere: making one table twice at once fails
_PUT = f"""
INSERT INTO online_rows SELECT * FROM unnest(%b::bytea[], %b::bytea[]) ON CONFLICT (key) DO UPDATE
SET value = excluded.value
WHERE substring(excluded.value, 1, {STAMP_BYTES}) >= substring(online_rows.value, 1, {STAMP_BYTES})
"""
_REPLACE = """
INSERT INTO online_rows SELECT * FROM unnest(%b::bytea[], %b::bytea[]) ON CONFLICT (key) DO UPDATE
SET value = excluded.value
"""
_GET = "SELECT key, value FROM online_rows WHERE key = ANY(%b)"
_DELETE = "DELETE FROM online_rows WHERE key >= %b AND substring(key, 1, %s) = %b"
_WAIT_SECONDS = 5

_T = TypeVar("_T")


class PostgresqlKeyValues:
    """One table; a batch is one statement. Calls from several threads wait for each other."""

    path: Path | None = None

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra(
                "a PostgreSQL online store needs a package that is not installed",
                remedy="pip install 'noria[postgres]'",
            ) from None
        parts = urlsplit(url)
        self._url, self._name = url, f"{parts.scheme}://{parts.hostname}{parts.path}"  # no password
        self._psycopg: Any = psycopg
        self._lock = RLock()
        self._connection: Any = None

    def put_newer(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        newest: dict[bytes, bytes] = {}
        for key, value in entries:
            if key not in newest or newest[key][:STAMP_BYTES] <= value[:STAMP_BYTES]:
                newest[key] = value  # one statement may not change a row twice
        keys = sorted(newest)  # two writers lock rows in the same order, so neither waits for the other for ever
        return self._run("written", lambda c: int(c.execute(_PUT, [keys, [newest[key] for key in keys]]).rowcount))

    def update(self, keys: Sequence[bytes], change: Callable[[list[bytes | None]], list[bytes]]) -> None:
        def work(connection: Any) -> None:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_UPDATE_LOCK])
                found = dict(connection.execute(_GET, [list(keys)], binary=True).fetchall())
                values = change([found.get(key) for key in keys])
                connection.execute(_REPLACE, [list(keys), values])

        self._run("written", work)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        found = self._run("read", lambda c: dict(c.execute(_GET, [list(keys)], binary=True, prepare=True).fetchall()))
        return [found.get(key) for key in keys]

    def delete(self, prefix: bytes) -> int:
        return self._run("written", lambda c: int(c.execute(_DELETE, [prefix, len(prefix), prefix]).rowcount))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _run(self, done: str, work: Callable[[Any], _T]) -> _T:
        """``work`` on the connection; once more on a new one when it was cut since it was last used."""
        with self._lock:
            try:
                kept = self._connection is not None
                try:
                    return work(self._connected())
                except self._psycopg.OperationalError:
                    if not (kept and self._connection.broken):
                        raise
                return work(self._connected())
            except self._psycopg.Error as error:
                raise Unavailable(
                    f"the online store {self._name} cannot be {done}: {error}",
                    remedy="Check that PostgreSQL runs there and lets this user in; nothing else needs a restart.",
                ) from error

    def _connected(self) -> Any:
        if self._connection is None or self._connection.closed:
            waits = {"connect_timeout": _WAIT_SECONDS, "tcp_user_timeout": 1000 * _WAIT_SECONDS}
            connection = self._psycopg.connect(self._url, autocommit=True, **waits)
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SCHEMA_LOCK])
                connection.execute(_SCHEMA)
            self._connection = connection
        return self._connection
