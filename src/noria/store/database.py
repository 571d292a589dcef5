"""The SQL database: opening, migrating, and the one way to write: a transaction."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    ARRAY,
    URL,
    Column,
    Connection,
    Engine,
    Executable,
    Row,
    Select,
    String,
    Table,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy import column as sql_column
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.pool import ConnectionPoolEntry

from noria.errors import (
    Conflict,
    CorruptArtifact,
    InvalidConfig,
    InvalidInput,
    MissingExtra,
    NoriaError,
    Unavailable,
)
from noria.store.tables import metadata

if TYPE_CHECKING:
    import sqlite3

Transaction = Connection
"""A connection inside an open transaction: what every write in Noria takes as its first argument."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_SECONDS = 30
_STREAMED_ROWS = 5000
_URLS = "Write sqlite:///PATH or postgresql://USER@HOST/NAME."
_WRITE_LOCK = 7_406_191  # PostgreSQL's advisory lock of this database's writers


class Database:
    """One database. Safe to share between threads; each transaction is one connection from the pool."""

    def __init__(self, url: str) -> None:
        self.url = url
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._engine = _open_engine(url)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; a fresh database is made in one go.

        Raises Conflict, and changes nothing, when a newer Noria made it.
        """
        with self._connect() as connection:
            revision = _current_revision(connection)
        if revision is not None and revision > HEAD_REVISION:
            raise _too_new(revision, self._engine.url)
        if revision != HEAD_REVISION:
            self._upgrade()

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self.write() as tx:  # of two processes that start at once, the second finds the work done
            config.attributes["connection"] = tx
            command.upgrade(config, "head")

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A read-write transaction: commits when the block ends, rolls back when it raises.

        One at a time, in all processes: what was read inside still holds at the commit.
        """
        with self._begin("SELECT pg_advisory_xact_lock(%s)") as connection:
            yield connection

    @contextmanager
    def append(self) -> Iterator[Transaction]:
        """A transaction that adds rows nobody else changes: beside others of its kind, never beside a ``write``."""
        with self._begin("SELECT pg_advisory_xact_lock_shared(%s)") as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent snapshot for reading."""
        with self._connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def _begin(self, lock: str) -> Iterator[Connection]:
        with self._connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # the one lock SQLite has
            else:
                connection.exec_driver_sql(lock, (_WRITE_LOCK,))
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def refresh_statistics(self) -> None:
        """Tell PostgreSQL how its tables have grown: it plans by that, and finds out by itself a minute too late."""
        if not self.is_sqlite:
            with self._connect() as connection:
                connection.exec_driver_sql("ANALYZE")
                connection.commit()

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded engine."""
        return self._engine.dialect.name == "sqlite"

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of a SQLite database to ``path``. Raises Unavailable for another engine."""
        if not self.is_sqlite:
            raise Unavailable("only a SQLite database is copied to a file", remedy="Use the server's own backup tool.")
        with self._connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(path),))

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection whose faults are told in our words."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _clear(error, self._engine.url) from error
        except (OverflowError, UnicodeEncodeError) as error:  # SQLite's driver has no error of its own for these
            raise InvalidInput(
                f"a value cannot be stored: {error}", remedy="Send 64-bit numbers and Unicode."
            ) from None
        except UnicodeDecodeError:  # SQLite quotes a damaged file's own bytes in its message
            raise _damaged(self._engine.url, "it cannot be read") from None

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


HEAD_REVISION = "0007"
"""The newest revision under ``migrations/versions``; a test holds the two together."""


def _clear(error: DBAPIError, url: URL) -> NoriaError:
    name, cause = url.render_as_string(hide_password=True), str(error.orig)
    if isinstance(error, DataError):
        return InvalidInput(f"a value cannot be stored: {cause}", remedy="Shorten it, or leave out NUL characters.")
    if isinstance(error, IntegrityError):
        return Conflict(f"the same was written at the same time: {cause}", remedy="Look at what is there, then retry.")
    if "malformed" in cause or "not a database" in cause:
        return _damaged(url, cause)
    return Unavailable(
        f"the database {name} cannot be used: {cause}",
        remedy="Check store.database in noria.toml, the free space, and that the folder or server accepts writes.",
    )


def _too_new(revision: str, url: URL) -> Conflict:
    return Conflict(
        f"the database {url.render_as_string(hide_password=True)} was brought to revision {revision} by a newer Noria; "
        f"this one knows revisions up to {HEAD_REVISION}",
        remedy="Run the newer Noria here too, or restore the copy that was made before it was installed.",
    )


def _damaged(url: URL, cause: str) -> CorruptArtifact:
    name = url.render_as_string(hide_password=True)
    return CorruptArtifact(f"the database {name} is damaged: {cause}", remedy="Restore a copy of it.")


def _open_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidConfig(f"{url!r} is no database URL", remedy=_URLS) from None
    if parsed.drivername in ("postgresql", "postgres"):
        return _open_postgresql(parsed.set(drivername="postgresql+psycopg"))
    if parsed.drivername != "sqlite":
        raise InvalidConfig(f"{parsed.drivername!r} is no database Noria knows", remedy=_URLS)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def _open_postgresql(url: URL) -> Engine:
    try:
        # No prepared statements: a plan made while a table was small would be kept once it grew; poolers lose them too.
        unprepared = {"prepare_threshold": None}
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=unprepared)
    except ImportError:
        raise MissingExtra(
            "a PostgreSQL database needs a package that is not installed", remedy="pip install 'noria[postgres]'"
        ) from None


def _configure_sqlite(connection: object, _entry: ConnectionPoolEntry) -> None:
    import sqlite3

    handle = cast(sqlite3.Connection, connection)
    handle.isolation_level = None  # we say BEGIN ourselves: the driver would begin too late
    _use_write_ahead_log(handle)
    handle.execute("PRAGMA synchronous=FULL")
    handle.execute("PRAGMA foreign_keys=ON")


def _use_write_ahead_log(handle: sqlite3.Connection) -> None:
    """SQLite does not wait for its lock here, and two processes may open a new database at the same moment."""
    import sqlite3

    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            handle.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _current_revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def conflict_insert(dialect: str, table: Table) -> Any:
    """An INSERT that can say what to do on conflict, which the dialects of SQLite and PostgreSQL spell alike."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)  # the other one would be loaded for nothing


def stream(tx: Transaction, query: Executable) -> Iterator[Sequence[Row[Any]]]:
    """The rows of a query, some thousand at a time, read as they are needed."""
    with tx.execute(query, execution_options={"yield_per": _STREAMED_ROWS}) as result:
        yield from result.partitions()


def unnested(columns: Sequence[Column[Any]], prefix: str = "") -> Select[Any]:
    """PostgreSQL's query that makes rows of one array parameter a column, named as the column behind ``prefix``.

    It takes many rows so fastest, and in the same statement as others.
    """
    arrays = [bindparam(prefix + column.name, type_=ARRAY(column.type)) for column in columns]
    rows = func.unnest(*arrays).table_valued(*(sql_column(column.name, column.type) for column in columns))
    derived = rows.render_derived()
    return select(*(derived.c[column.name] for column in columns))


def fetch(tx: Transaction, query: Executable, **parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query as the driver's own tuples: to wrap them in SQLAlchemy's takes as long as to read them."""
    cursor = tx.execute(query, parameters).cursor
    return [] if cursor is None else list(cursor.fetchall())


def fetch_among(tx: Transaction, column: Column[str], wanted: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows, in whole, of the column's table where it has one of the texts ``wanted``.

    All of them are one parameter of a statement that is built once: hundreds of placeholders take longer than the rows.
    """
    sqlite = tx.dialect.name == "sqlite"
    return fetch(tx, _among(tx.dialect.name, column), wanted=json.dumps(wanted) if sqlite else wanted)


@functools.cache
def _among(dialect: str, column: Column[str]) -> Select[Any]:
    query = select(column.table)
    if dialect == "sqlite":
        listed = func.json_each(bindparam("wanted", type_=String)).table_valued("value")
        return query.where(column.in_(select(listed.c.value)))
    return query.where(column == any_(bindparam("wanted", type_=ARRAY(String))))


def to_json(value: Mapping[str, object] | list[object] | tuple[object, ...]) -> str:
    """Canonical JSON: sorted keys, no spaces, so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(document: str) -> dict[str, object]:
    """The object ``to_json`` wrote."""
    return cast(dict[str, object], json.loads(document))


__all__ = [
    "Database",
    "Transaction",
    "conflict_insert",
    "fetch",
    "fetch_among",
    "from_json",
    "metadata",
    "stream",
    "to_json",
    "unnested",
]
