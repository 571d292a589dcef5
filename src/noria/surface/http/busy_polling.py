"""Busy polling: an event loop that does not fall asleep while its clients ask again at once."""

from __future__ import annotations

import asyncio
import time

from noria.processors import processors

_SECONDS = 0.0002
"""So long after an answer the next request is looked for, if requests lately came so soon."""
_SMOOTHING = 0.1


class BusyPolling:
    """Keeps the loop of one server awake for a moment after each answer, as long as that pays.

    To be woken costs a process tens of microseconds and what its processor's caches held: more than a row is scored in.
    Where clients take longer than that moment nothing is done, nor where there is no second processor for them.
    """

    def __init__(self) -> None:
        self._is_useful = processors() > 1
        self._pause = _SECONDS
        self._answered = 0.0
        self._is_awake = False

    def answered(self, now: float) -> None:
        """An answer has left, at ``now`` (``time.monotonic``)."""
        self._answered = now
        if self._is_useful and self._pause < _SECONDS and not self._is_awake:
            self._is_awake = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._look, loop)

    def asked(self, now: float) -> None:
        """A request begins to arrive, at ``now``."""
        # a long pause counts like one that was too long: clients that come back are believed soon
        self._pause += (min(now - self._answered, 2 * _SECONDS) - self._pause) * _SMOOTHING

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Between two of these calls the loop takes what has arrived."""
        if time.monotonic() < self._answered + _SECONDS:
            loop.call_soon(self._look, loop)
        else:
            self._is_awake = False
