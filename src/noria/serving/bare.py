"""Errors that are kept or answered, without the requests that they would hold."""

from __future__ import annotations

from typing import TypeVar

Raised = TypeVar("Raised", bound=BaseException)


def bare(error: Raised) -> Raised:
    """The error without the frames that it came through and the errors behind it; log it before.

    The frames have the request's values, and often what has the error: a list of faults, a future. Such a cycle lasts
    until the garbage collector comes, which in a gateway is seldom: a hundred refused uploads would fill the memory.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
