"""What libraries log, as lines of our own log: JSON where that is JSON."""

from __future__ import annotations

import logging

import structlog

_log = structlog.get_logger()


class LibraryLog(logging.Handler):
    """Passes on what is logged by Python's own means."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logger; what does not go into the log is no fault of whoever logs it."""
        try:
            message = record.getMessage().strip()
            _log.log(record.levelno, "library_said", logger=record.name, message=message, exc_info=record.exc_info)
        except Exception:
            self.handleError(record)


def take_over() -> None:
    """Have all that libraries log go there, unless somebody else has seen to it."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(LibraryLog(logging.WARNING))
