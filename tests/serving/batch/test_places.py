"""Faults of the places a job reads from and writes to: told by the job's own addresses."""

from __future__ import annotations

import decimal

import pyarrow
import pyarrow.parquet
import pytest

from noria.errors import Conflict, InvalidInput, NoriaError
from noria.serving.batch import PartsFailed
from noria.serving.batch.files import open_place


@pytest.fixture
def s3(s3_environment, monkeypatch):
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    open_place.cache_clear()
    yield monkeypatch
    open_place.cache_clear()


@pytest.mark.parametrize("end", ["input", "output"])
@pytest.mark.parametrize("fault", ["credentials", "bucket"])
def test_faults_of_an_object_store_name_the_jobs_address(batch, s3, fault, end):
    if fault == "credentials":
        s3.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    place = f"s3://{'noria' if fault == 'credentials' else 'nowhere'}/{batch.folder.name}"
    table = batch.folder / "t.parquet"
    batch.table(20).write_parquet(table)
    with pytest.raises(NoriaError) as found:
        batch.run(*((f"{place}/in", batch.folder / "out") if end == "input" else (table, f"{place}/out/")))
    assert f"{place}/{'in' if end == 'input' else 'out'}" in found.value.message
    assert "credentials" in found.value.remedy and "artifacts at" not in found.value.message


def test_a_folder_of_several_formats_is_not_read_in_part(batch):
    folder = batch.folder / "in"
    folder.mkdir()
    rows = batch.table(5).select("id", "distance", "hour")
    rows.write_csv(folder / "a.csv")
    (folder / "README.md").write_text("no table")
    for other in ("b.parquet", "b.csv.zst"):
        (folder / other).write_bytes(b"")
        with pytest.raises(InvalidInput, match=f"several formats: a.csv, {other}"):
            batch.run(folder, batch.folder / "out")
        (folder / other).unlink()
    assert batch.run(folder, batch.folder / "out").rows == 5


@pytest.mark.parametrize("address", ["ftp://me:secret@h/t.csv", "https://h/t.csv", "mysql://h/db#t"])
def test_other_places_are_refused_by_name(batch, address):
    table = batch.folder / "t.parquet"
    batch.table(2).write_parquet(table)
    for source, output in ((address, batch.folder / "out"), (table, address.replace(".csv", ""))):
        with pytest.raises(InvalidInput, match=f"to {address.partition(':')[0]}://") as found:
            batch.run(source, output)
        assert "secret" not in found.value.message and "postgresql://" in found.value.remedy


def test_a_folder_where_a_file_is_to_be_is_told_before_anything_is_scored(batch):
    batch.table(2).write_parquet(batch.folder / "t.parquet")
    (batch.folder / "out.csv").mkdir()
    with pytest.raises(Conflict, match=r"out\.csv"):
        batch.run(batch.folder / "t.parquet", batch.folder / "out.csv")
    assert not (batch.folder / "out.csv.noria/manifest.json").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"query": "SELECT 1"}, "--query is for databases"),
        ({"key": "id"}, "--key is for databases"),
        ({"texts": ["nope"]}, "no column nope"),
        ({"texts": ["id"]}, "--text is for CSV"),
    ],
)
def test_options_that_an_input_has_no_use_for_are_refused(batch, more, says):
    batch.table(2).write_parquet(batch.folder / "t.parquet")
    with pytest.raises(InvalidInput, match=says):
        batch.run(batch.folder / "t.parquet", batch.folder / "out", **more)


def test_a_column_of_a_type_that_frames_do_not_have_is_told_and_can_be_left_out(batch):
    wide = pyarrow.array([decimal.Decimal("1." + "0" * 45)], pyarrow.decimal256(60, 45))
    table = batch.table(1).to_arrow().append_column("wide", wide)
    pyarrow.parquet.write_table(table, batch.folder / "t.parquet")
    for output in ("out", "out.csv"):
        with pytest.raises(InvalidInput, match="wide") as found:
            batch.run(batch.folder / "t.parquet", batch.folder / output)
        assert "--keep" in found.value.remedy
    with pytest.raises(PartsFailed, match="1 of 1") as failed:
        batch.run(batch.folder / "t.parquet", batch.folder / "out", keep="none", renamed={"hour": "wide"})
    assert "wide (decimal256(60, 45))" in failed.value.details[0]
    assert batch.run(batch.folder / "t.parquet", batch.folder / "narrow", keep="id").rows == 1
