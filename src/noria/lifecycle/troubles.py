"""Troubles of what is done again every few seconds: told when they begin, not each time."""

from __future__ import annotations

import structlog

_log = structlog.get_logger()


class Troubles:
    """Logs a trouble as ``event`` once, until it is another one or over: an alias that is gone stays so for days.

    ``field`` says what has it, such as ``deployment``.
    """

    def __init__(self, event: str, field: str) -> None:
        self._event, self._field = event, field
        self._told: dict[str, str] = {}

    def begin(self, of: str, reason: str, *, traceback: bool = False) -> None:
        """Tell that ``of`` has a trouble; with the traceback of the exception at hand, where that says more."""
        if self._told.get(of) != reason:
            _log.error(self._event, **{self._field: of}, reason=reason, exc_info=traceback)
        self._told[of] = reason

    def end(self, of: str) -> None:
        """Tell that ``of`` has none any more, if it had one."""
        if self._told.pop(of, ""):
            _log.info(f"{self._event}_no_more", **{self._field: of})
