"""Rows of SQL: the types of columns, keys of any type, queries as people write them."""

from __future__ import annotations

import sqlite3
from uuid import UUID

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from noria.errors import InvalidData
from noria.serving.batch.tables import TableRows


def test_columns_that_are_null_at_first_have_the_type_of_their_later_values(batch):
    table = batch.table(3000).with_columns(
        late=pl.when(pl.col("id") > 2500).then(pl.format("n{}", "id")), never=pl.lit(None, pl.String)
    )
    url = f"sqlite:///{batch.folder}/t.db"
    table.write_database("rows", url, engine="sqlalchemy")
    for name, more in {"table": {}, "query": {"query": "SELECT * FROM rows"}}.items():
        source = url if more else f"{url}#rows"
        batch.run(source, batch.folder / name, key="id", part_rows=1000, batch_rows=100, **more)
        found = pl.read_parquet(batch.folder / name).sort("id")
        assert found["late"].to_list() == table["late"].to_list()
        assert found["never"].null_count() == 3000


def test_fractions_among_whole_numbers_are_not_cut_off(tmp_path):
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, x NUMERIC)")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", [(n, n if n < 1500 else n + 0.5) for n in range(1600)])
    connection.close()
    source = TableRows(f"sqlite:///{tmp_path}/t.db", "rows")
    assert source.schema["x"] == pl.Int64
    with pytest.raises(InvalidData, match="'x' has fractions"):
        list(source.batches(source.parts(5000)[0], ["x"], [], 100))


def test_a_table_is_cut_by_keys_of_type_uuid(batch, new_database_url):
    url = new_database_url("postgresql").replace("postgresql:", "postgresql+psycopg:")
    batch.table(50).write_database("rows", url, engine="sqlalchemy")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE rows ADD COLUMN key uuid PRIMARY KEY DEFAULT gen_random_uuid()"))
        keys = list(connection.execute(text("SELECT key FROM rows ORDER BY id")).scalars())
    engine.dispose()
    done = batch.run(f"{url}#rows", batch.folder / "out", part_rows=20, batch_rows=7)
    found = pl.read_parquet(batch.folder / "out").sort("id")
    assert (done.rows, done.parts) == (50, 3)
    assert [UUID(key) for key in found["key"]] == keys


@pytest.mark.parametrize("ending", ["", ";", " -- all of them", "\n-- all\n"])
def test_a_query_may_end_in_a_comment(batch, ending):
    url = f"sqlite:///{batch.folder}/t.db"
    batch.table(20).write_database("rows", url, engine="sqlalchemy")
    assert batch.run(url, batch.folder / "out", query=f"SELECT * FROM rows WHERE id < 5{ending}").rows == 5
