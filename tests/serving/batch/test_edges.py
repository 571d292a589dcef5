"""What a job does at its edges: no rows, bad rows alone, values no model takes, an output that is its own input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from noria.errors import InvalidData, InvalidInput, NotFound
from noria.optimize.bundle import Bundle, write_bundle
from noria.rollout.routes import Variant
from noria.serving.batch import ModelFiles, PartsFailed, targets
from noria.store.blobs import folder_digest

_HALVES = """
from noria.serving.runtimes import columns_of

class Halves:
    inline, concurrency = True, 1

    def __init__(self, folder, bundle):
        self.bundle = bundle

    def score(self, rows):
        return [int(word) / 2 for word in columns_of(rows, self.bundle)["word"] if word != "forgotten"]

    def unload(self):
        pass
"""


def refused_rows(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in output.glob("refused/*") for line in path.read_text().splitlines()]


@pytest.fixture
def halves(batch, monkeypatch):
    """A world whose model halves the number in a text, forgets the text forgotten, and fails at any other."""
    site, source = batch.folder / "site", "models/halves/1"
    (site / "halves-1.0.dist-info").mkdir(parents=True)
    (site / "halves-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: halves\nVersion: 1.0\n")
    (site / "halves-1.0.dist-info/entry_points.txt").write_text("[noria.runtimes]\nhalves = halves:Halves\n")
    (site / "halves.py").write_text(_HALVES)
    monkeypatch.syspath_prepend(site)
    folder = batch.folder / "artifacts" / source
    folder.mkdir(parents=True)
    write_bundle(folder, Bundle("generic", ("word",), kinds={"word": "string"}, runtime="halves"))
    variant = Variant("champion", "halves", 1, source, folder_digest(folder), 100.0)
    batch.model = ModelFiles(variant, "", batch.folder / "artifacts", batch.folder / "cache")
    return batch


def test_a_model_that_answers_fewer_rows_fails_the_part_and_loses_none(halves):
    pl.DataFrame({"word": ["3"] * 30 + ["forgotten", "5"]}).write_parquet(halves.folder / "t.parquet")
    with pytest.raises(PartsFailed) as failed:
        halves.run(halves.folder / "t.parquet", halves.folder / "out", keep="none", skip=True, max_retries=0)
    assert "answered 32 rows with 31 entries" in failed.value.details[0]
    assert not list((halves.folder / "out").glob("part-*"))


@pytest.mark.parametrize("bad", [0, 30])
def test_bad_rows_before_all_others_are_left_out_and_do_not_decide_the_type(halves, bad):
    words = ["one"] * bad + ["3", "two", "5"]
    pl.DataFrame({"word": words}).write_parquet(halves.folder / "t.parquet")
    done = halves.run(halves.folder / "t.parquet", halves.folder / "out", skip=True)
    assert (done.rows, done.skipped) == (2, bad + 1)
    assert pl.read_parquet(halves.folder / "out")["prediction"].to_list() == [1.5, 2.5]


@pytest.mark.parametrize("keep", ["none", ""])
def test_a_row_that_the_model_refuses_is_left_out_where_no_column_is_kept(batch, keep):
    table = batch.table(5).select("distance", hour=pl.when(pl.col("id") != 2).then("hour"))
    table.write_parquet(batch.folder / "t.parquet")
    with pytest.raises(PartsFailed, match=r"row 2 of .* gives no number without hour"):
        batch.run(batch.folder / "t.parquet", batch.folder / "failed", keep=keep)
    done = batch.run(batch.folder / "t.parquet", batch.folder / "out", keep=keep, skip=True)
    assert (done.rows, done.skipped) == (4, 1)
    expected = batch.expected(table.drop_nulls())
    np.testing.assert_allclose(pl.read_parquet(batch.folder / "out")["score"], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_infinite_inputs_are_refused(batch, kind):
    rows = {"id": [0, 1, 2, 3], "distance": [1.0, np.inf, 2.0, 3.0], "hour": [1.0, 2.0, -np.inf, 4.0]}
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(batch.folder / "t.parquet")
    else:
        (batch.folder / "t.csv").write_text("id,distance,hour\n0,1,1\n1,1e400,2\n2,2,-inf\n3,3,4\n")
    done = batch.run(batch.folder / f"t.{kind}", batch.folder / "out", skip=True)
    assert (done.rows, done.skipped) == (2, 2)
    assert pl.read_parquet(batch.folder / "out")["id"].to_list() == [0, 3]
    reasons = [row["reason"] for row in refused_rows(batch.folder / "out.noria")]
    assert reasons == ["input 'distance' is infinite", "input 'hour' is infinite"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("output", ["out", "out.parquet", "out.csv", "out.jsonl"])
def test_an_input_without_rows_gives_an_output_of_the_same_columns_without_rows(batch, kind, output):
    source, target = batch.folder / f"t.{kind}", batch.folder / output
    getattr(batch.table(0), f"write_{kind}")(source)
    for _ in range(2):
        assert batch.run(source, target).rows == 0
    columns = ["id", "name", "prediction", "probability", "score", "model_version"]
    if output == "out.jsonl":
        assert target.read_text() == ""
    else:
        found = pl.read_csv(target) if output == "out.csv" else pl.read_parquet(target)
        assert (found.columns, found.height) == (columns, 0)


@pytest.mark.parametrize("restart", [False, True])
def test_an_earlier_output_is_not_overwritten_by_what_is_made_of_it(batch, restart):
    batch.table(20).write_csv(batch.folder / "t.csv")
    batch.run(batch.folder / "t.csv", batch.folder / "s.csv", keep="all")
    before = (batch.folder / "s.csv").read_text()
    (batch.folder / "link.csv").symlink_to(batch.folder / "s.csv")
    for source in ("s.csv", "link.csv", "s*.csv"):
        with pytest.raises(InvalidInput, match="would read what it writes"):
            batch.run(batch.folder / source, batch.folder / "s.csv", keep="id", restart=restart)
        assert (batch.folder / "s.csv").read_text() == before
    batch.run(batch.folder / "s.csv", batch.folder / "s2.csv", keep="id")


def test_an_output_folder_is_not_overwritten_by_what_is_made_of_a_part_of_it(batch):
    batch.table(20).write_csv(batch.folder / "t.csv")
    batch.run(batch.folder / "t.csv", batch.folder / "s", keep="all")
    with pytest.raises(InvalidInput, match="would read what it writes"):
        batch.run(batch.folder / "s/part-00000.parquet", batch.folder / "s", keep="id", restart=True)
    assert pl.read_parquet(batch.folder / "s").height == 20


@pytest.mark.parametrize(
    ("source", "output"),
    [("in", "in/out"), ("in", "in/out.csv"), ("in/**", "in/out"), ("in/*.parquet", "in/out.parquet")],
)
def test_an_output_that_the_next_run_would_read_is_refused_at_once(batch, source, output):
    (batch.folder / "in").mkdir()
    batch.table(20).write_parquet(batch.folder / "in/t.parquet")
    with pytest.raises(InvalidInput, match="would read what it writes"):
        batch.run(batch.folder / source, batch.folder / output)
    assert [path.name for path in (batch.folder / "in").iterdir()] == ["t.parquet"]
    batch.run(batch.folder / "in/t.parquet", batch.folder / output)


def test_a_table_is_not_scored_into_itself(batch):
    url = f"sqlite:///{batch.folder}/t.db"
    batch.table(20).write_database("rows", url, engine="sqlalchemy")
    with pytest.raises(InvalidInput, match="would read what it writes"):
        batch.run(f"{url}#rows", f"{url}#rows")


@pytest.mark.parametrize(
    ("kind", "values", "outputs"),
    [
        ("Binary", [b"x"], ["jsonl", "csv"]),
        ("List(Binary)", [[b"x"]], ["jsonl", "csv"]),
        ("List(Int64)", [[1]], ["csv"]),
        ("Duration(time_unit='us')", pl.Series([1]).cast(pl.Duration), ["csv"]),
    ],
)
def test_columns_that_a_format_cannot_hold_are_named_before_anything_is_written(batch, kind, values, outputs):
    table = batch.table(1).with_columns(odd=pl.Series(values))
    table.write_parquet(batch.folder / "t.parquet")
    for output in outputs:
        with pytest.raises(InvalidInput) as error:
            batch.run(batch.folder / "t.parquet", batch.folder / "out", format=output)
        assert f"do not go into {output}: odd ({kind})" in str(error.value)
        assert not (batch.folder / "out.noria").exists()
    batch.run(batch.folder / "t.parquet", batch.folder / "out")
    assert_frame_equal(pl.read_parquet(batch.folder / "out").select("odd"), table.select("odd"))


def test_a_panic_in_polars_ends_the_part(batch, monkeypatch):
    batch.table(1).with_columns(odd=pl.lit(b"x")).write_parquet(batch.folder / "t.parquet")
    monkeypatch.setattr(targets, "check_types", lambda *_: None)  # or it would not come so far
    with pytest.raises(PartsFailed, match="Polars cannot read or write the rows"):
        batch.run(batch.folder / "t.parquet", batch.folder / "out", format="jsonl")


def test_a_missing_input_is_not_called_unknown_and_names_with_brackets_are_read(batch):
    for missing in ("no.parquet", "no.txt", "no/*.csv"):
        with pytest.raises(NotFound, match="nothing to read"):
            batch.run(batch.folder / missing, batch.folder / "out")
    (batch.folder / "t.txt").touch()
    with pytest.raises(InvalidInput, match=r"t\.txt is not known") as unknown:
        batch.run(batch.folder / "t.txt", batch.folder / "out")
    assert "--input-format" in unknown.value.remedy
    batch.table(7).write_parquet(batch.folder / "br[1].parquet")
    batch.table(5).write_parquet(batch.folder / "br1.parquet")
    assert batch.run(batch.folder / "br[1].parquet", batch.folder / "literal").rows == 7
    assert batch.run(batch.folder / "br[1]*.parquet", batch.folder / "pattern").rows == 5


def test_columns_of_one_name_are_named(batch):
    (batch.folder / "t.csv").write_text("distance,hour,hour\n1,2,3\n")
    with pytest.raises(InvalidData, match="several columns of one name: 'hour'"):
        batch.run(batch.folder / "t.csv", batch.folder / "out")
