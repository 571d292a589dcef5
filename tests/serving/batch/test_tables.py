"""Rows of SQL: the types of columns, keys of any type, queries as people write them."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from uuid import UUID

import polars as pl
import pytest
from sqlalchemy import Connection, create_engine, text

from noria.errors import InvalidData, InvalidInput, Unavailable
from noria.serving.batch import PartsFailed
from noria.serving.batch.manifest import Manifest
from noria.serving.batch.parts import Done
from noria.serving.batch.table_target import TableTarget
from noria.serving.batch.tables import TableRows
from noria.serving.batch.tables import connected as connected_as_jobs


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture
def postgres(new_database_url) -> str:
    return new_database_url("postgresql").replace("postgresql:", "postgresql+psycopg:")


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
    batches = list(source.batches(source.parts(5000)[0], ["x"], [], 1600))
    assert batches[0].frame["x"].to_list() == [*range(1500), *[None] * 100]
    assert [one.place for one in batches[0].refused] == list(range(1500, 1600))
    assert "column 'x' is 1500.5, not a value of the type Int64" in batches[0].refused[0].reason


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


@pytest.mark.parametrize("ending", ["", ";", " -- all of them", "\n-- all\n", "; -- all", ";\n/* all */ ; "])
def test_a_query_may_end_in_a_comment(batch, ending):
    url = f"sqlite:///{batch.folder}/t.db"
    batch.table(20).write_database("rows", url, engine="sqlalchemy")
    assert batch.run(url, batch.folder / "out", query=f"SELECT * FROM rows WHERE id < 5{ending}").rows == 5


def test_colons_in_a_query_are_the_query_s_own(batch, postgres):
    batch.table(3).write_database("rows", postgres, engine="sqlalchemy")
    query = r"SELECT id, distance, hour, ':nope' AS a, '\:b: 5%' AS b, id::text AS c FROM rows"
    batch.run(postgres, batch.folder / "out", query=query)
    found = pl.read_parquet(batch.folder / "out").sort("id")
    assert found["a"][0] == ":nope" and found["b"][0] == r"\:b: 5%" and found["c"].to_list() == ["0", "1", "2"]


@pytest.mark.parametrize("output", ["out", "out.csv", "sqlite", "postgresql"])
def test_kept_decimals_stay_exact(batch, postgres, output):
    with connected(postgres) as connection:
        connection.execute(
            text("CREATE TABLE t (id numeric(20) PRIMARY KEY, amount numeric, distance numeric, hour numeric(2))")
        )
        for n in range(3):
            values = {"id": 12345678901234567890 + n, "amount": Decimal(n) / 8, "distance": Decimal("0.1")}
            connection.execute(text("INSERT INTO t VALUES (:id, :amount, :distance, 3)"), values)
    ids = [12345678901234567890 + n for n in range(3)]
    if output in ("sqlite", "postgresql"):
        url = postgres if output == "postgresql" else f"sqlite:///{batch.folder}/o.db"
        batch.run(f"{postgres}#t", f"{url}#out", part_rows=2)
        with connected(url) as connection:
            rows = connection.execute(text("SELECT id, amount FROM out ORDER BY id")).all()
        found, places = [int(row[0]) for row in rows], [float(row[1]) for row in rows]
    else:
        batch.run(f"{postgres}#t", batch.folder / output, part_rows=2)
        read = pl.read_csv(batch.folder / output, infer_schema=False) if output == "out.csv" else None
        frame = pl.read_parquet(batch.folder / "out") if read is None else read
        found, places = [int(one) for one in frame["id"]], [float(one) for one in frame["amount"]]
    assert (sorted(found), sorted(places)) == (ids, [0.0, 0.125, 0.25])


def test_a_value_of_another_type_refuses_its_row_alone(batch):
    table = batch.table(1600)
    url = f"sqlite:///{batch.folder}/t.db"
    table.write_database("rows", url, engine="sqlalchemy")
    with connected(url) as connection:
        connection.execute(text("UPDATE rows SET distance = 'abc' WHERE id = 1500"))
        connection.execute(text("UPDATE rows SET distance = '21.5' WHERE id = 1501"))
    done = batch.run(f"{url}#rows", batch.folder / "out", key="id", skip=True)
    assert (done.rows, done.skipped) == (1599, 1)
    refused = json.loads((batch.folder / "out.noria/refused/part-00000.jsonl").read_text())
    assert refused["row"] == 1500 and refused["values"]["distance"] == "abc"


def test_an_output_table_takes_names_and_values_of_any_kind(batch, postgres):
    zoned = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    table = batch.table(2).with_columns(
        pl.lit(2**64 - 1, pl.UInt64).alias("wide"), pl.lit(dt.time(1, 2)).alias("time"), pl.lit(b"x").alias("bytes"),
        pl.lit(zoned).dt.convert_time_zone("Europe/Zurich").alias("at"), pl.lit(1).alias("100%"),
        pl.lit(2).alias("a%%b"),
    )  # fmt: skip
    table.write_parquet(batch.folder / "t.parquet")
    for url in (postgres, f"sqlite:///{batch.folder}/o.db"):
        batch.run(batch.folder / "t.parquet", f"{url}#out%")
        with connected(url) as connection:
            rows = connection.execute(text('SELECT * FROM "out%"')).mappings().all()
        (wide,), (raw,) = {int(row["wide"]) for row in rows}, {bytes(row["bytes"]) for row in rows}
        assert (wide, raw, rows[0]["100%"], rows[0]["a%%b"]) == (2**64 - 1, b"x", 1, 2)
        at = rows[0]["at"]
        assert at == zoned if isinstance(at, dt.datetime) else at.startswith("2026-01-01 10:00:00")


def test_what_no_table_holds_is_named_before_anything_is_made(batch):
    batch.table(2).with_columns(odd=pl.lit([1, 2])).write_parquet(batch.folder / "t.parquet")
    with pytest.raises(InvalidInput, match=r"do not go into a table: odd \(List\(Int64\)\)"):
        batch.run(batch.folder / "t.parquet", f"sqlite:///{batch.folder}/o.db#out")
    assert not (batch.folder / "o.db").exists()


def test_a_table_and_a_query_are_one_too_many(batch):
    with pytest.raises(InvalidInput, match="has both a table and a query"):
        batch.run("sqlite:///t.db#rows", batch.folder / "out", query="SELECT 1")


def test_passwords_are_neither_kept_nor_told(batch, postgres):
    batch.table(20).write_database("rows", postgres, engine="sqlalchemy")
    secret = postgres.replace("://noria@", "://noria:secret@")  # which the server does not ask for
    done = batch.run(f"{secret}#rows", f"{secret}#scores", key="id")
    batch.run(f"{secret}#rows", batch.folder / "out", key="id")
    with connected(postgres) as connection:
        records = connection.execute(text("SELECT record FROM scores_noria")).scalars().all()
    kept = [done.output, *records, (batch.folder / "out.noria/manifest.json").read_text()]
    assert done.rows == 20 and not any("secret" in one for one in kept)
    assert batch.run(f"{postgres}#rows", f"{postgres}#scores", key="id").parts_done_before == 0


def test_times_that_only_a_database_has_are_kept_as_text_or_refused(batch, postgres):
    late = "CASE WHEN n = 1500 THEN 'infinity' ELSE '2026-01-01'::timestamptz END"
    until = "CASE WHEN n % 2 = 0 THEN date 'infinity' WHEN n = 1 THEN date '20000-01-01' ELSE date '2026-01-01' END"
    with connected(postgres) as connection:
        rows = f"SELECT n, n::float8 AS distance, 1.0 AS hour, {until} AS until, {late} AS late"
        connection.execute(text(f"CREATE TABLE t AS {rows} FROM generate_series(0, 1999) AS n"))
    done = batch.run(f"{postgres}#t", batch.folder / "out", key="n", skip=True)
    kept = pl.read_parquet(batch.folder / "out").sort("n")
    assert kept["until"].to_list()[:4] == ["infinity", "20000-01-01", "infinity", "2026-01-01"]
    assert isinstance(kept["late"].dtype, pl.Datetime) and (done.rows, done.skipped) == (1999, 1)
    (refused,) = (batch.folder / "out.noria" / "refused").glob("*")
    assert 'is "infinity", not a value' in json.loads(refused.read_text())["reason"]


def test_what_frames_know_no_type_of_is_kept_as_text(batch, postgres):
    with connected(postgres) as connection:
        columns = "1 AS id, 2 AS hour, int4range(1, 5) AS r, time with time zone '10:00+02' AS t"
        connection.execute(text(f"CREATE TABLE t AS SELECT CAST(1 AS float8) AS distance, {columns}"))
    batch.run(f"{postgres}#t", batch.folder / "out")
    assert pl.read_parquet(batch.folder / "out").select("r", "t").rows() == [("[1, 5)", "10:00:00+02:00")]


def test_runs_that_begin_at_one_moment_share_a_table(batch, new_database_url):
    url = new_database_url("postgresql")
    manifest = Manifest({"work": 1}, [], 0, 1)
    for number in range(4):
        target = TableTarget(url, f"scores_{number}")
        with ThreadPoolExecutor(4) as pool:
            begun = [pool.submit(target.begin, manifest, {"a": pl.Int64()}, restart=False) for _ in range(4)]
        assert all(one.result() == (manifest, []) for one in begun)


def test_a_part_that_two_runs_commit_at_one_moment_is_there_once(batch, postgres):
    manifest, schema = Manifest({"work": 1}, [], 0, 1), {"a": pl.Int64()}
    target = TableTarget(postgres, "scores")
    target.begin(manifest, schema, restart=False)
    outputs = [target.part(0, manifest, schema) for _ in range(4)]
    for output in outputs:
        output.write(pl.DataFrame({"a": range(50_000)}, schema=schema))
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(output.commit, Done(0, 50_000, 0)) for output in outputs]
    assert [one.result() for one in done] == [None] * 4
    with connected(postgres) as connection:
        assert connection.execute(text("SELECT count(*) FROM scores")).scalar() == 50_000


def test_json_is_kept_as_it_is_written(batch, postgres):
    documents = ['{"a": 1}', '{"b": {"c": "x"}}', "[1, 2.5]", "null", '"text"', None]
    with connected(postgres) as connection:
        connection.execute(text("CREATE TABLE t (id INT PRIMARY KEY, distance INT, hour INT, said JSONB)"))
        rows = [{"id": number, "said": one} for number, one in enumerate(documents)]
        connection.execute(text("INSERT INTO t VALUES (:id, 1, 2, CAST(:said AS JSONB))"), rows)
    batch.run(f"{postgres}#t", batch.folder / "out")
    assert pl.read_parquet(batch.folder / "out").sort("id")["said"].to_list() == documents


def test_a_row_that_the_output_table_does_not_take_is_told_at_once_and_without_its_values(batch, postgres):
    source = batch.folder / "t.parquet"
    pl.DataFrame({"id": [987654], "distance": [1.0], "hour": [2.0]}).write_parquet(source)
    outputs = "id BIGINT, prediction INT, probability FLOAT, score FLOAT, model_version TEXT, job_id TEXT"
    with connected(postgres) as connection:
        connection.execute(text(f"CREATE TABLE scores ({outputs}, wanted TEXT NOT NULL)"))
    with pytest.raises(PartsFailed, match="Check its URL, table") as told:
        batch.run(source, f"{postgres}#scores")
    assert 'null value in column "wanted"' in told.value.details[0] and "987654" not in told.value.details[0]


def test_a_full_disk_is_no_fault_of_what_is_asked(tmp_path):
    url = f"sqlite:///{tmp_path}/t.db"
    with pytest.raises(Unavailable, match="full"), connected_as_jobs(url) as connection:
        connection.execute(text("PRAGMA max_page_count = 2"))
        connection.execute(text("CREATE TABLE t (x TEXT)"))
        connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": "x" * 100_000})
    with pytest.raises(InvalidData, match="no such table"), connected_as_jobs(url) as connection:
        connection.execute(text("SELECT * FROM connections"))
