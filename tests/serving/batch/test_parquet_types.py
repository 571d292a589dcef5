"""Files of one table whose columns have types that differ: every value as it is, or the job says so."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from noria.serving.batch import PartsFailed


def written(folder, **files):
    folder.mkdir()
    for name, columns in files.items():
        pl.DataFrame({"distance": [1.0, 2.0], "hour": [3.0, 4.0], **columns}).write_parquet(folder / f"{name}.parquet")


def test_files_of_one_table_may_have_numbers_of_several_kinds(batch):
    decimals = [
        pl.Series([Decimal(text)] * 2, dtype=pl.Decimal(10, places)) for text, places in (("1.1", 1), ("2.201", 3))
    ]
    written(
        batch.folder / "t",
        a={"distance": [1, 2], "id": [1, 2], "price": decimals[0], "note": [None, None]},
        b={"distance": [0.25, 700.5], "id": [3.0, None], "price": decimals[1], "note": ["x", "y"]},
    )
    batch.run(batch.folder / "t", batch.folder / "out")
    found = pl.read_parquet(batch.folder / "out")
    assert found["id"].to_list() == [1, 2, 3, None] and found["note"].to_list() == [None, None, "x", "y"]
    assert found["price"].to_list() == [Decimal("1.1")] * 2 + [Decimal("2.201")] * 2
    table = pl.DataFrame({"distance": [1.0, 2, 0.25, 700.5], "hour": [3.0, 4, 3, 4]})
    assert found["score"].to_list() == pytest.approx(batch.expected(table).tolist())


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ([1, 2], [1.5, 2.0]),
        ([True, False], [1, 2]),
        ([dt.date(2026, 1, 1)] * 2, [dt.datetime(2026, 1, 1, 12)] * 2),
        ([1.0, 2.0], [2**53 + 1, 0]),
    ],
)
def test_values_that_the_type_of_the_first_file_would_change_are_told(batch, first, other):
    written(batch.folder / "t", a={"kept": first}, b={"kept": other})
    with pytest.raises(PartsFailed) as told:
        batch.run(batch.folder / "t", batch.folder / "out", max_retries=0)
    assert "the columns kept of" in told.value.details[0] and "would be other ones" in told.value.details[0]
    assert batch.run(batch.folder / "t", batch.folder / "bare", keep="none").rows == 4


def test_instants_of_a_zone_that_is_an_offset_are_kept(batch):
    (batch.folder / "t").mkdir()
    instants = [dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)] * 2
    for name, zone in (("a", "+05:30"), ("b", "UTC")):
        at = pa.array(instants, pa.timestamp("us", tz=zone))
        columns = {"distance": [1.0, 2.0], "hour": [3.0, 4.0], "at": at}
        parquet.write_table(pa.table(columns), batch.folder / f"t/{name}.parquet")
    batch.run(batch.folder / "t", batch.folder / "out")
    assert pl.read_parquet(batch.folder / "out")["at"].to_list() == instants * 2


def test_a_damaged_page_is_named(batch):
    source = batch.folder / "t.parquet"
    parquet.write_table(batch.table(2000).to_arrow(), source, write_page_checksum=True, compression="none")
    content = bytearray(source.read_bytes())
    content[5000] ^= 1
    source.write_bytes(content)
    with pytest.raises(PartsFailed) as told:
        batch.run(source, batch.folder / "out")
    assert "t.parquet is no Parquet file, or is damaged" in told.value.details[0]
