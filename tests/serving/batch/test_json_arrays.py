"""A JSON array is cut into its elements, whatever they hold and wherever it is read."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.serving.batch import json_arrays
from noria.serving.batch.json_arrays import NoArray, array_lines

TEXTS = st.text(st.sampled_from('a"\\[]{},:\né'), max_size=5)
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def read(content: bytes, chunk: int, rows: int = 2) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "_CHUNK_BYTES", chunk)
        blocks = list(array_lines(io.BytesIO(content), rows))
    assert all(block.count(b"\n") == rows - 1 for block in blocks[:-1])
    return [json.loads(line) for block in blocks for line in block.split(b"\n")]


@given(values=st.lists(VALUES, max_size=6), chunk=st.integers(1, 9), indent=st.sampled_from([None, 0, 2]))
def test_an_array_is_cut_into_its_elements(values, chunk, indent):
    for ascii_only in (False, True):
        content = f" \n{json.dumps(values, indent=indent, ensure_ascii=ascii_only)}\n ".encode()
        assert read(content, chunk) == values


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}, {"a": 2}', "ends within element 1"),
        ('[{"a": 1}, {"a": "2}]', "ends within element 1"),
        ("[1, 2,]", "element 2 is missing"),
        ("[1,,2]", "element 1 is missing"),
        ("[,1]", "element 0 is missing"),
        ("[1, 2] [3]", "behind it: b'"),
        ("[1, 2}", "another bracket"),
    ],
)
def test_what_is_no_array_is_told(text, says, chunk):
    with pytest.raises(NoArray, match=says):
        read(text.encode(), chunk)


def test_an_element_without_an_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(json_arrays, "_LONGEST_ELEMENT_BYTES", 50)
    with pytest.raises(NoArray, match="element 1 has no end within 50 bytes"):
        read(b'[1, "' + b"x" * 500, 10)
