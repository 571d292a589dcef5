"""The same rows come out of every kind of source, and what cannot be read is said."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from noria.errors import InvalidConfig, InvalidData
from noria.features import Entity, FeatureView, Field, FileSource, PushSource, SqlSource, join_as_of
from noria.features.project_code import read_definitions
from noria.features.sources import Source, inferred_fields
from noria.features.types import Array, Float64, Int64, String, Struct, UnixTimestamp

START = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "user_id": [1, 2, 1, 3],
        "seen": [START, START + timedelta(hours=1), START + timedelta(hours=2, microseconds=7), None],
        "loaded": [START + timedelta(minutes=5), START + timedelta(hours=1), START + timedelta(days=1), START],
        "amount": [1.5, None, -3.0, 4.0],
        "tier": ["gold", "änd\"'; --", None, "x"],
    },
    schema_overrides={"seen": pl.Datetime("us", "UTC"), "loaded": pl.Datetime("us", "UTC")},
)
FIELDS = [Field(name="amount", dtype=Float64), Field(name="tier", dtype=String)]
TIMES = {"timestamp_field": "seen", "created_timestamp_column": "loaded"}


def sqlite(path: Path) -> Source:
    with sqlite3.connect(path / "shop.db") as connection:
        connection.execute('CREATE TABLE "stats" (user_id INTEGER, seen TEXT, loaded TEXT, amount REAL, tier TEXT)')
        texts = ROWS.with_columns(pl.col("seen", "loaded").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
        connection.executemany("INSERT INTO stats VALUES (?, ?, ?, ?, ?)", texts.iter_rows())
    return SqlSource(url="sqlite:///shop.db", table="stats", **TIMES)


def duckdb(path: Path) -> Source:
    import duckdb

    with duckdb.connect(str(path / "shop.duckdb")) as connection:
        connection.register("rows", ROWS.to_arrow())
        connection.execute("CREATE TABLE stats AS SELECT * FROM rows")
    return SqlSource(url="duckdb:///shop.duckdb", query="SELECT * FROM stats;", **TIMES)


def parquet(path: Path) -> Source:
    ROWS.write_parquet(path / "stats.parquet")
    return FileSource(path="stats.parquet", **TIMES)


def partitioned(path: Path) -> Source:
    ROWS.with_columns(day=pl.col("loaded").dt.date()).write_parquet(path / "stats", partition_by="day", mkdir=True)
    return FileSource(path="stats", **TIMES)


def delta(path: Path) -> Source:
    ROWS.write_delta(path / "lake")
    return FileSource(path="lake", file_format="delta", **TIMES)


def iceberg(path: Path) -> Source:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("shop", uri=f"sqlite:///{path}/catalog.db", warehouse=f"file://{path}/warehouse")
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.stats", ROWS.to_arrow().schema)
    table.append(ROWS.to_arrow())
    return FileSource(path=table.metadata_location, file_format="iceberg", **TIMES)


def read(source: Source, folder: Path, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
    frame = source.rows(folder, keys=["user_id"], fields=FIELDS, since=since, until=until).collect()
    return frame.sort("event_timestamp")


def expected(since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
    frame = ROWS.rename({"seen": "event_timestamp", "loaded": "created_timestamp"}).drop_nulls("event_timestamp")
    frame = frame if since is None else frame.filter(pl.col("event_timestamp") >= since)
    frame = frame if until is None else frame.filter(pl.col("event_timestamp") <= until)
    return frame.select("user_id", "event_timestamp", "created_timestamp", "amount", "tier").sort("event_timestamp")


def assert_reads_the_rows(source: Source, folder: Path) -> None:
    for since, until in [(None, None), (START + timedelta(hours=1), None), (START, START + timedelta(hours=1))]:
        found = read(source, folder, since, until)
        assert found.schema["event_timestamp"] == pl.Datetime("us", "UTC")
        assert found.rows() == expected(since, until).rows()
    assert [one.name for one in inferred_fields(source, folder, ["user_id"])] in (
        ["user_id", "amount", "tier"],
        ["user_id", "amount", "tier", "day"],
    )


@pytest.mark.parametrize("make", [sqlite, duckdb, parquet, partitioned, delta, iceberg])
def test_the_rows_in_the_times_asked_for_are_read(make, tmp_path):
    assert_reads_the_rows(make(tmp_path), tmp_path)


def test_postgresql_keeps_its_password_to_itself(new_database_url, tmp_path, monkeypatch):
    import psycopg

    url = new_database_url("postgresql")
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE stats (user_id bigint, seen timestamptz, loaded timestamp, amount float8, tier text)"
        )
        with connection.cursor() as cursor:
            naive = ROWS.with_columns(pl.col("loaded").dt.replace_time_zone(None))
            cursor.executemany("INSERT INTO stats VALUES (%s, %s, %s, %s, %s)", naive.rows())
    monkeypatch.setenv("SHOP_DATABASE", url)
    source = SqlSource(url="${SHOP_DATABASE}", table="public.stats", **TIMES)
    assert_reads_the_rows(source, tmp_path)
    assert url not in str(source.document())


KEYED = ["plain", "50%'x\\y\"", "ä:b", "a ", "nul\0"]
"""Texts that a statement could spoil; the last cannot be in every database."""


def keyed(key: list[object]) -> pl.DataFrame:
    seen = [START + timedelta(hours=hour) for hour in range(len(key))]
    return pl.DataFrame({"key": key, "seen": seen, "amount": [float(i) for i in range(len(key))]})


def run_sql(url: str, *statements: tuple[str, list[dict[str, object]]]) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement, rows in statements:
            connection.execute(text(statement), rows or None)
    engine.dispose()


def keyed_source(engine: str, rows: pl.DataFrame, kind: str, folder: Path, new_url: Callable[[str], str]) -> SqlSource:
    """A table whose column ``key`` is of a kind, in a database of an engine."""
    if engine == "duckdb":
        import duckdb

        with duckdb.connect(str(folder / "shop.duckdb")) as connection:
            connection.register("rows", rows.to_arrow())
            connection.execute(f"CREATE TABLE stats AS SELECT key::{kind} AS key, seen, amount FROM rows")
        return SqlSource(url="duckdb:///shop.duckdb", table="stats", timestamp_field="seen")
    url, listed = new_url(engine), rows.with_columns(pl.col("seen").dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")).to_dicts()
    if engine == "sqlite":
        table, row = f"CREATE TABLE stats (key {kind}, seen TEXT, amount REAL)", ":key, :seen, :amount"
    else:
        table = f"CREATE TABLE stats (key {kind}, seen timestamptz, amount float)"
        row = f"CAST(CAST(:key AS text) AS {kind}), CAST(CAST(:seen AS text) AS timestamptz), :amount"
        listed = [one | {"key": str(one["key"])} for one in listed]
    types = [("CREATE TYPE tier AS ENUM ('plain', 'ä:b')", [])] if kind == "tier" else []
    run_sql(url, *types, (table, []), (f"INSERT INTO stats VALUES ({row})", listed))
    return SqlSource(url=url, table="stats", timestamp_field="seen")


@pytest.mark.parametrize(
    ("engine", "kind", "stored", "more"),
    [
        ("sqlite", "TEXT", KEYED, ["unknown"]),
        ("postgresql", "text", KEYED[:4], ["unknown", KEYED[4]]),
        ("postgresql", "char(3)", ["abc", "x  "], ["unknown"]),
        ("postgresql", "tier", ["plain", "ä:b"], ["unknown", "a"]),
        ("duckdb", "VARCHAR", KEYED[:4], ["unknown", KEYED[4]]),
        ("duckdb", "ENUM('plain', 'ä:b')", ["plain", "ä:b"], ["unknown"]),
        ("sqlite", "INTEGER", [1, -7, 2**62], [5]),
        ("postgresql", "integer", [1, -7], [5, 2**62]),
        ("postgresql", "bigint", [1, -7, 2**62], [5]),
        ("duckdb", "UBIGINT", [1, 7, 2**63 + 1], [5]),
    ],
)
@pytest.mark.parametrize("most_keys", [2, 200_000])
def test_a_database_is_asked_for_keys_and_leaves_out_none(
    engine, kind, stored, more, most_keys, tmp_path, new_database_url, monkeypatch
):
    """By name, a few a query, or by range; however texts are quoted and types compare."""
    monkeypatch.setattr("noria.features.sql_source._KEYS_A_QUERY", 2)
    monkeypatch.setattr("noria.features.sql_source._MOST_KEYS", most_keys)
    source = keyed_source(engine, keyed(stored), kind, tmp_path, new_database_url)
    view = FeatureView(
        name="v", entities=[Entity(name="key")], schema=[Field(name="amount", dtype=Float64)], source=source
    )
    asked = [*stored, *more, None]
    types = {"key": pl.UInt64} if kind == "UBIGINT" else {}
    events = pl.DataFrame({"key": asked, "at": [START + timedelta(days=1)] * len(asked)}, schema_overrides=types)
    for some in (events, events.filter(~pl.col("key").cast(pl.String).str.contains(r"\x00| $"))):
        joined = join_as_of(some, [view], event_time="at", folder=tmp_path)
        known = {key: float(i) for i, key in enumerate(stored)}
        assert joined["v__amount"].to_list() == [known.get(key) for key in some["key"]]


def test_rows_are_typed_by_their_fields_where_the_first_thousand_do_not_tell(tmp_path, new_database_url):
    """A created time, a fraction and a member of a dictionary that come late."""
    url = new_database_url("postgresql")
    statement = (
        "CREATE TABLE stats AS SELECT n AS key, timestamptz '2026-03-01Z' + n * interval '1 second' AS seen, "
        "CASE WHEN n > 1200 THEN timestamptz '2026-03-02 01\\:02\\:03.000004Z' END AS loaded, "
        "CASE WHEN n > 1200 THEN 0.5 ELSE n END\\:\\:numeric AS amount, "
        'CASE WHEN n > 1200 THEN \'{"a"\\: 1, "b"\\: 2}\' ELSE \'{"a"\\: 1}\' END\\:\\:jsonb AS parts '
        "FROM generate_series(1, 1500) AS n"
    )
    run_sql(url, (statement, []))
    fields = [Field(name="amount", dtype=Float64), Field(name="parts", dtype=Struct({"a": Int64, "b": Int64}))]
    rows = SqlSource(url=url, table="stats", **TIMES).rows(tmp_path, keys=["key"], fields=fields).collect()
    late = rows.filter(key=1500).row(0, named=True)
    assert late["created_timestamp"] == datetime(2026, 3, 2, 1, 2, 3, 4, tzinfo=UTC)
    assert (late["amount"], json.loads(late["parts"])) == (0.5, {"a": 1, "b": 2})
    assert json.loads(rows.filter(key=1).row(0, named=True)["parts"]) in ({"a": 1}, {"a": 1, "b": None})


def test_files_and_tables_lie_in_a_bucket(s3_environment, tmp_path, monkeypatch):
    endpoint = s3_environment["AWS_ENDPOINT_URL"]
    for name, value in s3_environment.items():
        if name != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(name, value)
    options = {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    ROWS.write_parquet("s3://noria/features/stats.parquet", storage_options=options)
    ROWS.write_delta("s3://noria/features/lake", storage_options=options)
    for path, file_format in [("stats.parquet", "parquet"), ("lake", "delta")]:
        source = FileSource(
            path=f"s3://noria/features/{path}", file_format=file_format, s3_endpoint_override=endpoint, **TIMES
        )
        assert_reads_the_rows(source, tmp_path)


def test_columns_are_read_under_other_names(tmp_path):
    ROWS.rename({"user_id": "uid"}).write_parquet(tmp_path / "stats.parquet")
    source = FileSource(path="stats.parquet", field_mapping={"uid": "user_id", "seen": "event_timestamp"}, **TIMES)
    assert read(source, tmp_path).rows() == expected().rows()


def test_a_pushed_source_reads_its_past_from_the_batch_source(tmp_path):
    assert_reads_the_rows(PushSource(name="pushed", batch_source=parquet(tmp_path)), tmp_path)
    with pytest.raises(InvalidConfig, match="no batch_source"):
        read(PushSource(name="pushed"), tmp_path)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_any_unit_and_zone_is_the_same_instant(zone, unit, tmp_path):
    """Two hours of 1 November 2026 are both called half past one in New York."""
    hours = [datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in (4, 5, 6, 7)]
    frame = pl.DataFrame({"user_id": [1] * 4, "seen": hours, "amount": [1.0] * 4})
    zoned = frame.with_columns(pl.col("seen").dt.convert_time_zone(zone).dt.cast_time_unit(unit))
    zoned.write_parquet(tmp_path / "stats.parquet")
    source = FileSource(path="stats.parquet", timestamp_field="seen")
    found = source.rows(tmp_path, keys=["user_id"], fields=FIELDS[:1]).collect()
    assert found["event_timestamp"].dt.convert_time_zone("UTC").to_list() == hours
    assert found["created_timestamp"].equals(found["event_timestamp"])


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_feature_that_is_an_instant_comes_in_microseconds(unit, tmp_path):
    when = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
    frame = pl.DataFrame({"user_id": [1], "seen": [START], "last": [when]})
    frame = frame.with_columns(pl.col("last").dt.cast_time_unit(unit), lasts=pl.concat_list(pl.col("last")))
    frame.write_parquet(tmp_path / "stats.parquet")
    fields = [Field(name="last", dtype=UnixTimestamp), Field(name="lasts", dtype=Array(UnixTimestamp))]
    source = FileSource(path="stats.parquet", timestamp_field="seen")
    found = source.rows(tmp_path, keys=["user_id"], fields=fields).collect()
    assert found.schema["last"] == UnixTimestamp.polars() and found["last"].item() == when
    assert found["lasts"].to_list() == [[when]]


def cut(path: Path) -> None:
    file = path / "stats.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(path: Path) -> None:
    (path / "stats.parquet").unlink()


@pytest.mark.parametrize("spoil", [cut, remove])
def test_a_file_that_is_gone_or_cut_off_is_named(spoil, tmp_path):
    source = parquet(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InvalidData, match=r"stats\.parquet"):
        read(source, tmp_path)


def test_a_missing_or_ill_typed_column_is_named_with_what_there_is(tmp_path):
    source = parquet(tmp_path)
    with pytest.raises(InvalidData, match=r"lacks columns: city"):
        source.rows(tmp_path, keys=["user_id"], fields=[Field(name="city", dtype=String)])
    with pytest.raises(InvalidData, match=r"'tier'.*String.*Int64"):
        source.rows(tmp_path, keys=["user_id"], fields=[Field(name="tier", dtype=Int64)])
    with pytest.raises(InvalidData, match="not a time"):
        read(FileSource(path="stats.parquet", timestamp_field="amount"), tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SqlSource(url="sqlite:///none.db", table="stats", **TIMES), "no such table"),
        (SqlSource(url="nonsense", table="stats", **TIMES), "no database URL"),
        (SqlSource(url="${NOT_SET_AT_ALL}", table="stats", **TIMES), "NOT_SET_AT_ALL"),
        (SqlSource(url="duckdb:///none.duckdb", table="stats", **TIMES), "none.duckdb"),
        (SqlSource(url="postgresql://127.0.0.1:1/x", table="stats", **TIMES), "cannot be read"),
    ],
)
def test_a_database_that_does_not_answer_is_told_without_a_traceback(source, message, tmp_path):
    with pytest.raises((InvalidData, InvalidConfig), match=message):
        read(source, tmp_path)


def test_a_table_of_text_is_told_how_it_becomes_one_that_is_read(tmp_path):
    (tmp_path / "orders.csv").write_text("shop,event_timestamp,orders\nnorth,2026-01-01T00:00:00Z,1\n")
    with pytest.raises(InvalidData, match=r"'orders\.csv' is text, and Parquet is read\nWrite it once: pl\.read_csv"):
        FileSource(path="orders.csv").scan(tmp_path)


def test_a_repo_that_still_imports_feast_is_told_what_to_import(tmp_path):
    (tmp_path / "repo.py").write_text("from feast.types import Int64\n")
    with pytest.raises(InvalidConfig, match=r"repo\.py, line 1: .*\nImport from noria\.features what it imports"):
        read_definitions(tmp_path)
