"""Hashing of passwords and tokens: argon2id with OWASP's parameters for it (19 MiB, two passes)."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_ONE_AT_A_TIME = threading.Lock()  # each takes 19 MiB, and a flood of logins must not take them all at once


def hash_secret(secret: str) -> str:
    """The argon2id hash of ``secret``, with its salt and parameters."""
    with _ONE_AT_A_TIME:
        return _hasher().hash(secret)


def matches(hashed: str | None, secret: str) -> bool:
    """Whether ``secret`` was hashed to ``hashed``; None takes as long as any, so that nobody learns who exists."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    with _ONE_AT_A_TIME:
        try:
            return _hasher().verify(hashed or _nobody(), secret) and hashed is not None
        except (Argon2Error, InvalidHashError):
            return False


@functools.cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@functools.cache
def _nobody() -> str:
    return _hasher().hash("nobody")
