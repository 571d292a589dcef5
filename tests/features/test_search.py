"""The search through cells finds what a binary search finds, wherever the numbers lie."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from noria.features.search import Ascending

FAR = 2**63 - 1
numbers = st.one_of(st.integers(0, 20), st.integers(0, FAR), st.integers(2**40, 2**40 + 30))


@given(st.lists(numbers, max_size=60), st.lists(st.one_of(numbers, st.integers(-FAR, -1)), max_size=60))
def test_it_finds_what_searchsorted_finds(values, sought):
    values, sought = np.sort(np.array(values, np.int64)), np.array(sought, np.int64)
    assert Ascending.of(values).find(sought).tolist() == np.searchsorted(values, sought).tolist()


def test_numbers_that_crowd_in_one_cell_are_found_too():
    values = np.append(np.arange(10_000), FAR)
    sought = np.random.default_rng(3).permutation(12_000)
    assert (Ascending.of(values).find(sought) == np.searchsorted(values, sought)).all()
