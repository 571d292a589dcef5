"""Files that are compressed as a whole, under right and wrong names, whole and damaged; and what is not read."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import zstandard

from noria.errors import InvalidData, InvalidInput
from noria.serving.batch import PartsFailed


def as_lz4(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


PACKINGS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: zstandard.compress(content[:999]) + zstandard.compress(content[999:]),
    "lz4": as_lz4,
}


@pytest.mark.parametrize("ending", PACKINGS)
def test_compressed_texts_are_read_whole_whatever_they_are_called(batch, ending):
    table, packed = batch.table(300), PACKINGS[ending]
    files = {
        f"t.csv.{ending}": packed(table.write_csv().encode()),
        f"t.jsonl.{ending.upper()}": packed(table.write_ndjson().encode()),
        "array.json": packed(codecs.BOM_UTF8 + table.write_json().encode()),
        "plain.csv": packed(table.write_csv().encode()),
    }
    for number, (name, content) in enumerate(files.items()):
        (batch.folder / name).write_bytes(content)
        assert batch.run(batch.folder / name, batch.folder / f"out{number}", part_rows=100).parts == 1
        found = pl.read_parquet(batch.folder / f"out{number}").sort("id")
        np.testing.assert_allclose(found["score"], batch.expected(table))
        assert found["name"].to_list() == table["name"].to_list()


@pytest.mark.parametrize("ending", PACKINGS)
@pytest.mark.parametrize("damage", ["cut", "none"])
def test_what_is_cut_off_or_not_compressed_at_all_is_named(batch, ending, damage):
    text = batch.table(2000).write_csv().encode()
    source = batch.folder / f"t.csv.{ending}"
    source.write_bytes(PACKINGS[ending](text)[:-20] if damage == "cut" else text)
    with pytest.raises((InvalidData, PartsFailed), match=rf"t\.csv\.{ending} is damaged"):
        batch.run(source, batch.folder / "out")


@pytest.mark.parametrize(
    ("name", "remedy"), [("t.csv.zip", "Unzip"), ("t.xlsx", "CSV"), ("t.duckdb", "COPY"), ("t.db", "sqlite:///")]
)
def test_what_is_not_read_has_a_remedy(batch, name, remedy):
    (batch.folder / name).write_bytes(b"PK")
    with pytest.raises(InvalidInput, match="is not read") as told:
        batch.run(batch.folder / name, batch.folder / "out")
    assert remedy in told.value.remedy
