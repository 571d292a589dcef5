"""Faults of the places a job reads from and writes to: told by the job's own addresses."""

from __future__ import annotations

import decimal
import sys
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from pyarrow import feather

from noria.errors import Conflict, InvalidInput, NoriaError, NotFound, Unavailable
from noria.serving.batch import PartsFailed
from noria.serving.batch.files import open_place
from servers import free_port


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
    for other in ("b.parquet", "b.csv.zip"):
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
    runs = pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([1], pyarrow.int32()), pyarrow.array([5]))
    feather.write_feather(table.drop(["wide"]).append_column("runs", runs), batch.folder / "t.feather")
    with pytest.raises(InvalidInput, match=r"into parquet: runs \(Object\)"):
        batch.run(batch.folder / "t.feather", batch.folder / "other")
    assert batch.run(batch.folder / "t.feather", batch.folder / "other", keep="id").rows == 1


@pytest.mark.parametrize("asked", ["", "*/*.parquet", "**/*.parquet"])
def test_links_to_folders_are_followed_and_lead_nowhere_else_unnoticed(batch, asked):
    inputs, elsewhere = batch.folder / "in", batch.folder / "elsewhere"
    for folder in (inputs / "day=1", elsewhere):
        folder.mkdir(parents=True)
        batch.table(5).write_parquet(folder / "t.parquet")
    (inputs / "day=2").symlink_to(elsewhere)
    (inputs / "no-table").symlink_to("nowhere")
    address = f"{inputs}/{asked}"
    assert batch.run(address, batch.folder / "out").rows == 10
    (inputs / "day=1/gone.parquet").symlink_to("nowhere")
    with pytest.raises(NotFound, match=r"gone\.parquet is a link to nothing"):
        batch.run(address, batch.folder / "out")
    (inputs / "day=1/gone.parquet").unlink()
    (elsewhere / "circle").symlink_to(inputs)
    with pytest.raises(InvalidInput, match="day=2/circle is a link to a folder that it lies in"):
        batch.run(address, batch.folder / "out")


def test_a_ray_cluster_that_is_not_there_is_told_at_once(batch, monkeypatch):
    table = batch.folder / "t.parquet"
    batch.table(2).write_parquet(table)
    never_asked = SimpleNamespace(is_initialized=lambda: False)  # it would look for minutes
    monkeypatch.setitem(sys.modules, "ray", never_asked)
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=r"Ray at ray://127.0.0.1:\d+ cannot be used: .*refused") as told:
        batch.run(table, batch.folder / "out", engine="ray")
    assert "RAY_ADDRESS" in told.value.remedy
