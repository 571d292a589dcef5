"""Who acts, and in which request: what every entry says, whichever room wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from noria.ids import process_user


@dataclass(frozen=True, slots=True)
class Caller:
    """The actor of what is written; ``request_id`` is empty outside of a server."""

    actor: str
    request_id: str = ""


_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


@contextmanager
def request(request_id: str, actor: str = "") -> Iterator[None]:
    """Within the block, entries name this request, and this actor unless the change names another."""
    token = _CALLER.set(Caller(actor or process_user(), request_id))
    try:
        yield
    finally:
        _CALLER.reset(token)


def caller() -> Caller:
    """Who acts now: whoever sent the request, else whoever runs this process."""
    return _CALLER.get() or Caller(process_user())
