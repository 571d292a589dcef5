"""What libraries log, as lines of our own log."""

from __future__ import annotations

import logging

import structlog

from noria.surface.http.library_log import LibraryLog


def test_a_library_that_logs_what_cannot_be_written_goes_on(capsys):
    logger = logging.Logger("h2")
    logger.addHandler(LibraryLog())
    logger.error("%d streams", "some")
    assert "%d streams" in capsys.readouterr().err


def test_what_a_library_logs_is_a_line_of_our_own_log():
    logger = logging.Logger("uvicorn.error")
    logger.addHandler(LibraryLog(logging.WARNING))
    with structlog.testing.capture_logs() as told:
        logger.info("not so much")
        logger.error("Cancel %s running task(s)\n", 2)
    (line,) = told
    assert (line["event"], line["log_level"], line["logger"]) == ("library_said", "error", "uvicorn.error")
    assert line["message"] == "Cancel 2 running task(s)"
