"""Work on a stream of items in several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from noria.processors import processors

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST_THREADS = 4
"""With more, the thread that takes the results is what they wait for."""


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``work`` on each item, in their order; a few items are held at once, and taken in the thread of the caller."""
    source, threads = iter(items), min(processors(), _MOST_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="join") as pool:
        pending: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, threads))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in islice(source, 1))
