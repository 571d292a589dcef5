"""Work that several threads share comes back in order, and reads no further ahead than it must."""

import os
import threading

import pytest

from noria.features.threads import in_threads


def test_results_come_in_order_whichever_is_ready_first():
    last_may_go = threading.Event()

    def work(item: int) -> int:
        if item == 0 and (os.cpu_count() or 1) > 1:
            assert last_may_go.wait(10)  # the second one is done before the first
        else:
            last_may_go.set()
        return item * item

    assert list(in_threads(work, range(50))) == [item * item for item in range(50)]


def test_items_are_taken_by_the_caller_and_only_a_few_ahead():
    taken = []

    def items():
        for item in range(100):
            taken.append((item, threading.current_thread()))
            yield item

    results = in_threads(lambda item: item, items())
    assert next(results) == 0
    assert len(taken) <= 8
    results.close()
    assert {thread for _, thread in taken} == {threading.current_thread()}


@pytest.mark.parametrize("place", [0, 7])
def test_what_goes_wrong_is_raised_where_its_result_would_be(place):
    def work(item: int) -> int:
        if item == place:
            raise ValueError(f"item {item}")
        return item

    results, seen = in_threads(work, range(20)), []
    with pytest.raises(ValueError, match=f"item {place}"):
        for one in results:
            seen.append(one)
    assert seen == list(range(place))
