"""Output into an SQL table: one transaction a part, with the record of it.

Beside a table ``scores`` stands ``scores_noria``: a row for every part that is there, and one (part -1) for the job
itself. A row's job is in its column ``job_id``, so that the table may hold what several jobs wrote.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Time,
    delete,
    func,
    insert,
    inspect,
    select,
)

from noria.errors import InvalidData, InvalidInput
from noria.serving.batch.manifest import Manifest, check_same, decode_done, encode_done
from noria.serving.batch.parts import Done
from noria.serving.batch.tables import connected
from noria.serving.batch.targets import PartOutput
from noria.serving.batch.writers import open_writer

if TYPE_CHECKING:
    import polars as pl

_JOB = -1
_INSERTED_ROWS = 20_000


@dataclass
class TableTarget:
    """A table in the database at ``url``, made when it is missing."""

    url: str
    table: str

    @property
    def refusals(self) -> str:
        """See Target."""
        return f"table {self.table}_refused"

    def begin(
        self, manifest: Manifest, schema: Mapping[str, pl.DataType], *, restart: bool
    ) -> tuple[Manifest, list[Done]]:
        """See Target. The job is what writes the same work to this table, whatever else stands there."""
        check_types(schema)
        try:
            return self._begun(manifest, schema, restart=restart)
        except InvalidData:  # another run made the tables, or the record, at the same moment: now they are there
            return self._begun(manifest, schema, restart=restart)

    def _begun(
        self, manifest: Manifest, schema: Mapping[str, pl.DataType], *, restart: bool
    ) -> tuple[Manifest, list[Done]]:
        records, refused, rows = self.records(), self.refused(), self._rows(schema)
        with connected(self.url) as connection:
            self._check(connection, rows)
            for table in (records, refused, rows):
                table.create(connection, checkfirst=True)
            found = connection.execute(
                select(records.c.job_id, records.c.record).where(
                    records.c.work_id == manifest.work_id, records.c.part == _JOB
                )
            ).first()
            before = None if found is None else msgspec.json.decode(found.record, type=Manifest)
            if before is not None and not restart:
                check_same(before, manifest, f"table {self.table}")
                manifest = before
            elif found is not None:
                for table in (rows, refused, records):
                    connection.execute(delete(table).where(table.c.job_id == found.job_id))
            if before is None or restart:
                ids = {"job_id": manifest.job_id, "work_id": manifest.work_id}
                record = msgspec.json.encode(manifest).decode()
                connection.execute(insert(records).values(**ids, part=_JOB, record=record))
            done = select(records.c.record).where(records.c.job_id == manifest.job_id, records.c.part != _JOB)
            return manifest, [decode_done(record.encode()) for record in connection.execute(done).scalars()]

    def part(self, number: int, manifest: Manifest, schema: Mapping[str, pl.DataType]) -> PartOutput:
        """See Target."""
        del number
        return _TablePart(self, manifest, self._rows(schema), schema)

    def finish(self, manifest: Manifest) -> None:
        """See Target."""

    def close(self) -> None:
        """See Target."""

    def _check(self, connection: Connection, rows: Table) -> None:
        """Raises InvalidInput for a table of other columns."""
        inspector = inspect(connection)
        if not inspector.has_table(rows.name, rows.schema):
            return
        have = {column["name"] for column in inspector.get_columns(rows.name, rows.schema)}
        if missing := [name for name in rows.c.keys() if name not in have]:  # noqa: SIM118  columns, not their names
            raise InvalidInput(
                f"table {self.table} lacks columns of the output: {', '.join(missing)}",
                remedy="Add them, or write to a new table.",
            )

    def _named(self, suffix: str, *columns: Column[Any]) -> Table:
        *schema, name = self.table.split(".")
        return Table(f"{name}{suffix}", MetaData(), *columns, schema=".".join(schema) or None)

    def _rows(self, schema: Mapping[str, pl.DataType]) -> Table:
        columns = [Column(name, _sql_type(kind)) for name, kind in schema.items()]
        return self._named("", *columns, Column("job_id", Text, nullable=False, index=True))

    def records(self) -> Table:
        """The table of what is committed."""
        return self._named(
            "_noria",
            Column("job_id", Text, primary_key=True),
            Column("part", Integer, primary_key=True, autoincrement=False),
            Column("work_id", Text, nullable=False),
            Column("record", Text, nullable=False),
        )

    def refused(self) -> Table:
        """The table of rows without a prediction."""
        return self._named(
            "_refused",
            Column("job_id", Text, nullable=False, index=True),
            Column("source", Text),
            Column("row", BigInteger),
            Column("reason", Text),
            Column("values", Text),
        )


class _TablePart:
    """One part's rows, in a file until they go into the table: a transaction should not last as long as scoring."""

    def __init__(self, target: TableTarget, manifest: Manifest, rows: Table, schema: Mapping[str, pl.DataType]) -> None:
        self._target, self._manifest, self._table = target, manifest, rows
        self._folder = Path(tempfile.mkdtemp(prefix="noria-batch-"))
        self._rows = self._folder / "rows"
        self._writer = open_writer(self._rows, "parquet", schema)
        self._refused: list[Mapping[str, object]] = []

    def write(self, frame: pl.DataFrame) -> None:
        self._writer.write(frame)

    def refuse(self, rows: Sequence[Mapping[str, object]]) -> None:
        self._refused += rows

    def commit(self, done: Done) -> None:
        self._writer.close()
        try:
            self._commit(done)
        except InvalidData:  # another run may have committed the part at the same moment: then this finds it there
            self._commit(done)
        self.discard()

    def _commit(self, done: Done) -> None:
        job, records = self._manifest.job_id, self._target.records()
        with connected(self._target.url) as connection:
            known = select(func.count()).where(records.c.job_id == job, records.c.part == done.number)
            if not connection.execute(known).scalar():
                # First: whoever commits the part at the same time fails here, and has written nothing.
                ids = {"job_id": job, "work_id": self._manifest.work_id}
                connection.execute(insert(records).values(**ids, part=done.number, record=encode_done(done).decode()))
                self._insert(connection, job)

    def _insert(self, connection: Connection, job: str) -> None:
        import polars as pl
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(self._rows).iter_batches(_INSERTED_ROWS):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            _fill(connection, self._table, frame.with_columns(job_id=pl.lit(job)))
        for row in self._refused:
            values = msgspec.json.encode(row["values"], enc_hook=str).decode()
            connection.execute(insert(self._target.refused()).values({**row, "job_id": job, "values": values}))

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _fill(connection: Connection, table: Table, frame: pl.DataFrame) -> None:
    """Insert rows; PostgreSQL takes a copy several times as fast."""
    if connection.dialect.name != "postgresql":
        connection.execute(insert(table), _as_sqlite_has_it(frame).rows(named=True))
        return
    quoted = connection.dialect.identifier_preparer
    names = ", ".join(quoted.quote(name) for name in frame.columns)
    # As for a statement with parameters, the names have every % twice; the driver is given one without.
    statement = f"COPY {quoted.format_table(table)} ({names}) FROM STDIN".replace("%%", "%")
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in frame.iter_rows():
            copy.write_row(row)


def _as_sqlite_has_it(frame: pl.DataFrame) -> pl.DataFrame:
    """Instants in UTC, as it has no zones; numbers wider than its own as texts, which lose nothing."""
    import polars as pl

    return frame.with_columns(
        pl.col(name).dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        if isinstance(kind, pl.Datetime)
        else pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
        if (isinstance(kind, pl.Datetime) and kind.time_zone) or isinstance(kind, pl.Decimal) or kind in _wide()
    )


def check_types(schema: Mapping[str, pl.DataType]) -> None:
    """Raises InvalidInput that names the columns which a table cannot hold."""
    if bad := [f"{name} ({kind})" for name, kind in schema.items() if _sql_type(kind) is None]:
        raise InvalidInput(
            f"columns of these types do not go into a table: {', '.join(bad)}",
            remedy="Write Parquet, or leave them out: --keep with the names of the others, or --keep none.",
        )


def _sql_type(kind: pl.DataType) -> Any:
    """The type of a column that holds every value as it is; None where there is none."""
    import polars as pl

    if kind in _wide() or isinstance(kind, pl.Decimal):
        digits = (kind.precision, kind.scale) if isinstance(kind, pl.Decimal) else (20 if kind == pl.UInt64 else 39, 0)
        return Numeric(*digits).with_variant(Text(), "sqlite")
    if kind.is_integer():
        return BigInteger()
    if isinstance(kind, pl.Datetime):
        return DateTime(timezone=kind.time_zone is not None)
    if kind.is_numeric():
        return Double()
    plain: dict[Any, Any] = {pl.Boolean: Boolean, pl.Date: Date, pl.Time: Time, pl.Binary: LargeBinary}
    texts = dict.fromkeys((pl.String, pl.Categorical, pl.Enum, pl.Null), Text)
    made = {**plain, **texts}.get(kind.base_type())
    return made() if made is not None else None


def _wide() -> Sequence[Any]:
    """The types of whole numbers that a BIGINT does not hold."""
    import polars as pl

    return pl.UInt64, pl.Int128
