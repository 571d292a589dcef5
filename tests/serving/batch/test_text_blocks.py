"""Texts are cut where records end, whatever stands in them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.serving.batch import text_blocks
from noria.serving.batch.text_blocks import record_blocks, records_of

CELLS = st.text(st.sampled_from('a,"\n\r;é'), max_size=6)


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=30),
    wanted=st.integers(1, 7),
    chunk=st.integers(1, 9),
)
def test_blocks_of_csv_hold_whole_records_and_together_all_of_them(rows, wanted, chunk):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    content = out.getvalue().encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "_CHUNK_BYTES", chunk)
        blocks = list(record_blocks(io.BytesIO(content), wanted, quoted=True))
    assert b"".join(block for block, _ in blocks) == content
    assert sum(count for _, count in blocks) == len(rows)
    assert all(count == wanted for _, count in blocks[:-1])
    read = [row for block, _ in blocks for row in csv.reader(io.StringIO(block.decode(), newline=""))]
    assert read == rows


@given(
    rows=st.lists(st.lists(st.tuples(CELLS, st.booleans()), min_size=2, max_size=3), min_size=1, max_size=20),
    wanted=st.integers(1, 7),
    chunk=st.integers(1, 9),
)
def test_a_quote_within_an_unquoted_value_is_a_character_like_others(rows, wanted, chunk):
    content = "".join(",".join(_cell(*cell) for cell in row) + "\n" for row in rows).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "_CHUNK_BYTES", chunk)
        blocks = list(record_blocks(io.BytesIO(content), wanted, quoted=True))
    assert b"".join(block for block, _ in blocks) == content
    assert sum(count for _, count in blocks) == len(rows)
    records = [record for block, _ in blocks for record in records_of(block)]
    assert [len(next(csv.reader([record.decode()]))) for record in records] == [len(row) for row in rows]


def _cell(text: str, is_quoted: bool) -> str:
    """Written between quotes, or without them and what would end the value, and not beginning with one."""
    if is_quoted:
        return '"' + text.replace('"', '""') + '"'
    return "x" + "".join(sign for sign in text if sign not in ",\n\r")


def test_a_quote_that_is_never_closed_and_a_record_without_an_end_are_told(monkeypatch):
    text = b'1,a\n2,"b"\n3,"c\n4,d\n'
    with pytest.raises(text_blocks.EndlessRecord, match="never closed") as found:
        list(record_blocks(io.BytesIO(text), 1, quoted=True))
    assert found.value.row == 2
    monkeypatch.setattr(text_blocks, "_CHUNK_BYTES", 4)
    monkeypatch.setattr(text_blocks, "_LONGEST_RECORD_BYTES", 8)
    with pytest.raises(text_blocks.EndlessRecord, match="no end within 8 bytes") as found:
        list(record_blocks(io.BytesIO(text), 2, quoted=True))
    assert found.value.row == 2
    assert len(list(record_blocks(io.BytesIO(text), 1, quoted=False))) == 4


def test_a_range_ends_where_it_is_told_to():
    text = io.BytesIO(b"1\n2\n3\n4")
    text.seek(2)
    assert list(record_blocks(text, 10, quoted=False, size=4)) == [(b"2\n3\n", 2)]
    text.seek(2)
    assert list(record_blocks(text, 2, quoted=False)) == [(b"2\n3\n", 2), (b"4", 1)]
