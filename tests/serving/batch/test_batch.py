"""Tables in, tables with predictions out: every format, what is kept, what is refused, what is asked wrongly."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pyarrow import orc

from noria.errors import Conflict, InvalidData, InvalidInput, NotFound
from noria.features.instants import instants_of
from noria.serving.batch import PartsFailed, run_job


def scores(frame: pl.DataFrame) -> np.ndarray:
    return frame.sort("id")["score"].to_numpy()


def written(table: pl.DataFrame, folder, kind: str) -> str:
    """The table at some place; the address to read it from."""
    folder.mkdir(exist_ok=True)
    if kind == "parquet":
        table.write_parquet(folder / "t.parquet", row_group_size=130)
    elif kind == "csv":
        table.write_csv(folder / "t.csv")
    elif kind == "jsonl":
        table.write_ndjson(folder / "t.jsonl")
    elif kind == "json":
        (folder / "t.json").write_text(json.dumps(table.rows(named=True), indent=1))
    elif kind == "arrow":
        table.write_ipc(folder / "t.feather", record_batch_size=130)
    elif kind == "arrow stream":
        table.write_ipc_stream(folder / "t.arrow")
    elif kind == "orc":
        orc.write_table(table.to_arrow(), folder / "t.orc", stripe_size=4096)
    elif kind == "avro":
        table.write_avro(folder / "t.avro")
    else:
        table.write_database("rows", f"sqlite:///{folder}/t.db", engine="sqlalchemy")
        return f"sqlite:///{folder}/t.db#rows"
    return str(next(folder.glob("t.*")))


@pytest.mark.parametrize(
    "kind",
    ["parquet", "csv", "jsonl", "json", "arrow", "arrow stream", "orc", "avro", "sqlite", "postgresql"],
)
def test_every_format_of_input_gives_the_same_predictions(batch, kind, new_database_url):
    table = batch.table()
    if kind == "postgresql":
        source = f"{(url := new_database_url(kind))}#rows"
        table.write_database("rows", url.replace("postgresql:", "postgresql+psycopg:"), engine="sqlalchemy")
    else:
        source = written(table, batch.folder / "in", kind)
    key = "id" if kind in ("sqlite", "postgresql") else ""
    done = batch.run(source, batch.folder / "out", part_rows=300, batch_rows=70, key=key)
    found = pl.read_parquet(batch.folder / "out").sort("id")
    parts = {"parquet": 3, "arrow": 3, "json": 1, "arrow stream": 1, "orc": done.parts, "avro": 1}.get(kind, 4)
    assert (done.rows, done.skipped, done.parts) == (1000, 0, parts)
    assert found.columns == ["id", "name", "prediction", "probability", "score", "model_version"]
    assert_frame_equal(found.select("id", "name"), table.select("id", "name"))
    np.testing.assert_allclose(found["score"], batch.expected(table), rtol=1e-12)
    assert found["prediction"].to_list() == (batch.expected(table) > 0.5).astype(int).tolist()
    np.testing.assert_allclose(found["probability"], np.maximum(found["score"], 1 - found["score"]))
    assert set(found["model_version"]) == {"3"}


@pytest.mark.parametrize("output", ["out", "out.parquet", "out.csv", "out.jsonl", "table"])
def test_every_kind_of_output_holds_the_same_rows(batch, output):
    table = batch.table()
    source = written(table, batch.folder / "in", "parquet")
    address = f"sqlite:///{batch.folder}/out.db#scores" if output == "table" else batch.folder / output
    batch.run(source, address, part_rows=300, parallelism=2)
    read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson}.get(output.rpartition(".")[2], pl.read_parquet)
    if output == "table":
        found = pl.read_database("SELECT * FROM scores", sqlite3.connect(batch.folder / "out.db"))
    else:
        found = read(address)
    assert found.height == 1000
    np.testing.assert_allclose(scores(found), batch.expected(table), rtol=1e-12)
    assert found.sort("id")["name"].to_list() == table["name"].to_list()


def test_a_query_is_scored_and_rows_without_a_key_are_refused(batch):
    table = batch.table(50)
    source = written(table, batch.folder / "in", "sqlite").partition("#")[0]
    done = batch.run(source, batch.folder / "out", query="SELECT * FROM rows WHERE id < 20;", key="id", part_rows=7)
    assert (done.rows, done.parts) == (20, 3)
    with pytest.raises(InvalidData, match=r"10 rows of .* have no k"):
        query = "SELECT *, CASE WHEN id >= 10 THEN id END AS k FROM rows WHERE id < 20"
        batch.run(source, batch.folder / "nulls", query=query, key="k", keep="id")
    with pytest.raises(InvalidInput, match="a table or a query"):
        batch.run(source, batch.folder / "neither")


def test_a_regression_has_predictions_alone(tmp_path):
    from serving.batch.batch_world import BatchWorld
    from serving.gateway_world import World

    batch = BatchWorld(World(tmp_path), task="regression")
    table = batch.table(50)
    batch.run(written(table, tmp_path / "in", "csv"), tmp_path / "out.parquet", keep="id", with_ids=True)
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.columns == ["id", "prediction_id", "prediction", "model_version"]
    np.testing.assert_allclose(found["prediction"], batch.expected(table))
    assert found["prediction_id"].n_unique() == 50


def test_folders_hive_partitions_and_patterns_are_read(batch):
    table = batch.table(90)
    for day, rows in enumerate(table.iter_slices(30)):
        folder = batch.folder / f"in/day=2026-03-0{day + 1}/shop={day}"
        folder.mkdir(parents=True)
        rows.write_parquet(folder / "rows.parquet")
        (folder / "_SUCCESS").touch()
    batch.run(batch.folder / "in", batch.folder / "out")
    found = pl.read_parquet(batch.folder / "out").sort("id")
    assert found.height == 90 and found.schema["shop"] == pl.Int64 and found["shop"].to_list()[::30] == [0, 1, 2]
    assert found["day"].to_list()[::30] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    some = batch.run(batch.folder / "in/**/shop=[12]/*.parquet", batch.folder / "some")
    assert (some.rows, some.parts) == (60, 2)
    table.write_parquet(batch.folder / "in/more.parquet")
    with pytest.raises(InvalidInput, match=r"the folders of more\.parquet name other columns than those of day="):
        batch.run(batch.folder / "in", batch.folder / "all")


def test_ids_with_leading_zeros_and_named_columns_stay_texts(batch):
    table = batch.table(20).with_columns(zip=pl.format("0{}", pl.col("id") + 1000), code=pl.col("id") + 5)
    source = written(table, batch.folder / "in", "csv")
    batch.run(source, batch.folder / "out", keep="zip,code", texts=("code",))
    found = pl.read_parquet(batch.folder / "out")
    assert found["zip"][0] == "01000" and found["code"][0] == "5"


def test_columns_of_other_names_are_given(batch):
    table = batch.table(20).rename({"hour": "at_hour"})
    source = written(table, batch.folder / "in", "parquet")
    with pytest.raises(InvalidInput, match=r"lacks inputs of the model: hour \(a number\)"):
        batch.run(source, batch.folder / "out")
    batch.run(source, batch.folder / "out", renamed={"hour": "at_hour"})
    np.testing.assert_allclose(
        scores(pl.read_parquet(batch.folder / "out")), batch.expected(table.rename({"at_hour": "hour"}))
    )


@pytest.mark.parametrize(
    ("change", "more", "error", "says"),
    [
        (
            {"hour": pl.col("name")},
            {},
            InvalidData,
            "column 'hour' is String, and the model's input 'hour' is a number",
        ),
        ({"score": pl.lit(1)}, {}, InvalidInput, "called like those of the output: score"),
        ({}, {"keep": "ids"}, InvalidInput, "no column ids to keep"),
        ({}, {"renamed": {"hours": "hour"}}, InvalidInput, "the model has no input hours"),
        ({}, {"format": "xml"}, InvalidInput, "format 'xml' is not written"),
        ({}, {"engine": "spark"}, InvalidInput, "no engine 'spark'"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_anything_is_written(batch, change, more, error, says):
    source = written(batch.table(10).with_columns(**change), batch.folder / "in", "parquet")
    with pytest.raises(error, match=says):
        batch.run(source, batch.folder / "out", **more)
    assert not (batch.folder / "out").exists()


def test_inputs_that_are_not_there_are_named(batch):
    with pytest.raises(NotFound, match=r"nothing to read at .*nowhere"):
        batch.run(batch.folder / "nowhere", batch.folder / "out", input_format="csv")
    with pytest.raises(NotFound, match="no database"):
        batch.run(f"sqlite:///{batch.folder}/nothing.db#rows", batch.folder / "out")
    (batch.folder / "t.parquet").write_text("no parquet")
    with pytest.raises(InvalidData, match="is no Parquet file"):
        batch.run(batch.folder / "t.parquet", batch.folder / "out")


BROKEN = {
    "csv": "id,distance,hour\n0,1,2\n1,far,3\n2,3,4\n3,5\n4,,6\n",
    "jsonl": '{"id": 0, "distance": 1, "hour": 2}\n{"id": 1, "distance": "far", "hour": 3}\n'
    '{"id": 2, "distance": 3, "hour": 4}\n{"id": 3\n{"id": 4, "hour": 6}\n',
}


@pytest.mark.parametrize("kind", BROKEN)
def test_rows_that_cannot_be_scored_fail_the_job_by_name_or_are_set_aside(batch, kind):
    (batch.folder / f"t.{kind}").write_text(BROKEN[kind])
    with pytest.raises(PartsFailed, match=rf"row 1 of .*t\.{kind}: column 'distance' is \"far\", not a number"):
        batch.run(batch.folder / f"t.{kind}", batch.folder / "failed")
    assert not list(batch.folder.glob("failed/*"))
    done = batch.run(batch.folder / f"t.{kind}", batch.folder / "out", skip=True)
    assert (done.rows, done.skipped) == (2, 3)
    assert pl.read_parquet(batch.folder / "out")["id"].to_list() == [0, 2]
    refused = [
        json.loads(line) for line in (batch.folder / "out.noria/refused/part-00000.jsonl").read_text().splitlines()
    ]
    assert [row["row"] for row in refused] == [1, 3, 4]
    assert refused[2]["reason"] == "flights@3 gives no number without distance"
    assert refused[2]["values"]["hour"] == 6


def test_features_are_looked_up_by_keys_and_unknown_ones_refused(with_views):
    rows = {"id": [0, 1, 2], "carrier": ["UA", "??", "UA"], "origin": ["EWR"] * 3, "distance": 700.0, "hour": 17.5}
    pl.DataFrame(rows).write_parquet(with_views.folder / "t.parquet")
    done = with_views.run(with_views.folder / "t.parquet", with_views.folder / "out", skip=True)
    assert (done.rows, done.skipped) == (0, 3)  # the wind is months old by now: null, and the model takes no nulls
    refused = (with_views.folder / "out.noria/refused/part-00000.jsonl").read_text()
    assert "no features of view 'carrier' for {'carrier': '??'}" in refused
    assert refused.count("gives no number without weather__wind") == 2
    full = pl.DataFrame(rows).with_columns(carrier__late_share=0.2, carrier__mean_delay=7.5, weather__wind=11.0)
    full.drop("carrier").write_parquet(with_views.folder / "full.parquet")
    assert with_views.run(with_views.folder / "full.parquet", with_views.folder / "full").rows == 3
    pl.DataFrame(rows).drop("origin").write_parquet(with_views.folder / "less.parquet")
    with pytest.raises(InvalidInput, match="or the key origin, by which features are looked up"):
        with_views.run(with_views.folder / "less.parquet", with_views.folder / "less")


def test_a_row_whose_time_cannot_be_read_is_refused_alone(with_views):
    def join(frame, when, specs):
        instants_of(frame, when)
        return frame.with_columns(pl.lit(7.5).alias(name) for spec in specs for name in spec.feature_names)

    times = ["2026-01-01", "soon", None, "2026-01-01T00:00:00Z"]
    rows = {"id": range(4), "carrier": "UA", "origin": "EWR", "distance": 700.0, "hour": 17.5, "when": times}
    pl.DataFrame(rows).write_csv(with_views.folder / "t.csv")
    asked = with_views.asked(with_views.folder / "t.csv", with_views.folder / "out", as_of="when", skip=True)
    done = run_job(*asked, join)
    assert (done.rows, done.skipped) == (2, 2)
    written_down = (with_views.folder / "out.noria/refused/part-00000.jsonl").read_text().splitlines()
    refused = {one["row"]: one["reason"] for one in map(json.loads, written_down)}
    assert refused[1] == "'when' is 'soon', no time in ISO 8601" and "'when' is null" in refused[2]


def test_a_part_that_fails_is_named_and_the_others_are_done(batch):
    for name in "abc":
        batch.table(10).write_parquet(batch.folder / f"{name}.parquet")
    batch.table(10).drop("hour").write_parquet(batch.folder / "b.parquet")
    with pytest.raises(PartsFailed, match="1 of 3 parts failed") as failed:
        batch.run(batch.folder / "[abc].parquet", batch.folder / "out")
    assert "b.parquet lacks columns: hour" in str(failed.value)
    assert len(list((batch.folder / "out").iterdir())) == 2


def test_files_that_no_job_wrote_stay(batch):
    source = written(batch.table(10), batch.folder / "in", "parquet")
    (batch.folder / "out").mkdir()
    (batch.folder / "out/mine.txt").touch()
    with pytest.raises(Conflict, match="no job wrote them"):
        batch.run(source, batch.folder / "out", restart=True)
