"""The online key-value store: one packed row per key; SQLite, LMDB, Redis or PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from noria.errors import InvalidConfig
from noria.store.lmdb_keyvalue import LmdbKeyValues
from noria.store.postgresql_keyvalue import PostgresqlKeyValues
from noria.store.redis_keyvalue import RedisKeyValues
from noria.store.sqlite_keyvalue import SqliteKeyValues

SQLITE_FILE = "features.db"
_IMMUTABLE = "?immutable=1"

Change = Callable[[list[bytes | None]], list[bytes]]
"""The values of some keys, None where there is none → the values they shall have."""


class KeyValueStore(Protocol):
    """Bytes by key, shared by any number of processes; a handle may be used by several threads.

    A key is 1 to 511 bytes long, a value begins with a stamp (``noria.store.stamps``). Every method raises Unavailable
    when the store cannot be used now, and works again by itself once it can.
    """

    @property
    def path(self) -> Path | None:
        """Where it lies on this machine; None for one that is reached over the network."""
        ...

    def put_newer(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        """Write the entries, each unless its key holds a greater stamp; returns how many were written.

        All become visible at once or, after a failure, none. Of entries with one key the last of the newest counts.
        """
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of every key as of one moment, None where there is none."""
        ...

    def update(self, keys: Sequence[bytes], change: Change) -> None:
        """Replace the values of the ``keys`` (each once) by what ``change`` makes of them: all at once, or none.

        Nobody else writes them between reading and writing; ``change`` may be called again when somebody tried.
        """
        ...

    def delete(self, prefix: bytes) -> int:
        """Delete every key that begins with ``prefix`` (all of them with ``b""``); returns how many there were."""
        ...

    def close(self) -> None:
        """Let go of the file or connection."""
        ...


def open_keyvalue(url: str, folder: Path, *, create: bool = True) -> KeyValueStore:
    """The store that ``url`` names; a SQLite file in ``folder`` when it is empty.

    One on this machine that is not there is made, unless ``create`` is false: that is for who only reads.

    ``sqlite:///PATH``, ``lmdb:///PATH`` (a relative one starts at ``folder``), ``redis://HOST:PORT/0``,
    ``postgresql://USER@HOST/NAME``; ``sqlite:///PATH?immutable=1`` for a file that nobody writes, in a folder that may
    be read-only. Raises InvalidConfig for any other, MissingExtra, Unavailable.
    """
    scheme, _, rest = url.partition("://")
    if not url:
        return SqliteKeyValues(folder / SQLITE_FILE, create=create)
    if scheme == "sqlite" and rest.endswith(_IMMUTABLE):
        return SqliteKeyValues(folder / rest.removeprefix("/").removesuffix(_IMMUTABLE), immutable=True)
    if scheme in _LOCAL and rest.strip("/"):
        return _LOCAL[scheme](folder / rest.removeprefix("/"), create=create)
    if scheme in _REMOTE and rest:
        return _REMOTE[scheme](url)
    raise InvalidConfig(
        f"{scheme + '://' if rest else url!r} is no online store",
        remedy="Use sqlite:///PATH, lmdb:///PATH, redis://HOST:PORT/0 or postgresql://USER@HOST/NAME.",
    )


_LOCAL: dict[str, Callable[..., KeyValueStore]] = {"sqlite": SqliteKeyValues, "lmdb": LmdbKeyValues}
_REMOTE: dict[str, Callable[[str], KeyValueStore]] = {
    "redis": RedisKeyValues,
    "rediss": RedisKeyValues,
    "postgresql": PostgresqlKeyValues,
    "postgres": PostgresqlKeyValues,
}
