"""Newest rows, whatever the batches they come in and however far apart the times are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.features.asof import NONE, Newest, Rows, Slots

FAR = 2**63 - 1
# Times a few ticks apart, and so far apart that entity and time do not fit into one integer side by side.
near, far = st.integers(0, 9), st.sampled_from([-FAR - 1, -FAR, -3, 0, 1, 2**40, FAR - 1, FAR])


def rows_of(ticks: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    """Rows of (entity, event, created)."""
    return st.lists(st.tuples(st.integers(NONE, 3), ticks, ticks), max_size=20)


def asked_of(ticks: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.integers(0, 3), ticks), min_size=1, max_size=10)


def expected(rows: list[tuple[int, int, int]], entity: int, time: int, ttl: int | None) -> int:
    seen = [
        (event, created, number)
        for number, (owner, event, created) in enumerate(rows)
        if owner == entity and max(event, created) <= time and (ttl is None or event >= time - ttl)
    ]
    return max(seen)[2] if seen else NONE


@given(st.data(), st.sampled_from([near, far]), st.sampled_from([None, 0, 1, 4, 2**62, 2**80]), st.integers(1, 8))
def test_each_asked_time_gets_the_greatest_row_it_sees(data, ticks, ttl, batch):
    rows, asked = data.draw(rows_of(ticks)), data.draw(asked_of(ticks))
    slots = Slots.of(*np.array(asked, np.int64).T)
    newest = Newest(slots, ttl)
    table, won = np.array(rows, np.int64).reshape(-1, 3), set()
    for start in range(0, len(rows), batch):
        entity, event, created = table[start : start + batch].T
        numbers = np.arange(start, start + len(entity))
        rows_now = Rows(entity, event, created, np.maximum(event, created), numbers)
        won |= set(newest.offer(newest.candidates(rows_now)).tolist())
        assert set(newest.held().tolist()) <= won
    found = newest.seen().tolist()
    assert found == [expected(rows, *asked[place], ttl) for place in slots.order]
    assert set(found) - {NONE} <= set(newest.held().tolist())


@pytest.mark.parametrize("ascending", [True, False])
def test_rows_in_order_and_in_disorder_give_the_same(ascending):
    random = np.random.default_rng(7)
    asked = random.integers(0, 20, 300), random.integers(0, 1000, 300)
    entity, event = random.integers(0, 20, 5000), random.integers(0, 1000, 5000)
    order = np.lexsort((event, entity)) if ascending else np.arange(5000)
    slots = Slots.of(*asked)
    newest = Newest(slots, None)
    newest.offer(newest.candidates(Rows(entity[order], event[order], event[order], event[order], np.arange(5000))))
    found = order[newest.seen()]
    for one, time, number in zip(asked[0][slots.order], asked[1][slots.order], found, strict=True):
        assert entity[number] == one
        assert event[number] == event[(entity == one) & (event <= time)].max()
