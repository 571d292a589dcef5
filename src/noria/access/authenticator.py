"""From a credential to an identity. Hashing is slow on purpose, so what was proven once is remembered for a while."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from noria.access import tokens, users
from noria.access.entities import Identity
from noria.access.secrets import matches
from noria.clock import Clock
from noria.errors import Unauthenticated
from noria.store.database import Database

_FRESH_SECONDS = 5.0
_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class _Proven:
    """A credential that matched ``hashed``; what its user may do was read at ``read_at`` of the monotonic clock."""

    hashed: str
    identity: Identity
    read_at: float


class Authenticator:
    """Checks passwords and tokens. Safe to share between threads.

    A revoked token, a disabled user or a lost role is noticed within five seconds.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._proven: dict[bytes, _Proven] = {}

    def remembered(self, name: str, secret: str) -> Identity | None:
        """The identity of a credential proven in the last seconds; None asks for ``authenticate``, which takes long."""
        found = self._proven.get(_digest(name, secret))
        return found.identity if found is not None and time.monotonic() - found.read_at < _FRESH_SECONDS else None

    def authenticate(self, name: str, secret: str) -> Identity:
        """The identity of a user's password, or of a token; a token needs no name. Raises Unauthenticated."""
        key = _digest(name, secret)
        token = tokens.split(secret)
        known = self._lookup(name, secret)
        hashed = None if known is None else known[1]
        proven = self._proven.get(key)
        same = proven is not None and proven.hashed == hashed
        valid = same or matches(hashed, secret if token is None else token[1])  # takes as long when nobody is known
        if known is None or not valid:
            self._proven.pop(key, None)
            raise Unauthenticated(
                "the user name, password or token is not valid", remedy="Check them, or ask an admin."
            )
        if len(self._proven) >= _MOST_REMEMBERED:
            self._proven.clear()
        self._proven[key] = _Proven(known[1], known[0], time.monotonic())
        return known[0]

    def _lookup(self, name: str, secret: str) -> tuple[Identity, str] | None:
        """(identity, kept hash) of who the credential claims to be, or None."""
        token = tokens.split(secret)
        with self._database.read() as tx:
            if token is not None:
                found = tokens.find_live(tx, token[0], self._clock.now())
                name, hashed = found if found is not None else ("", None)
            else:
                hashed = users.password_hash(tx, name)
            user = users.find_user(tx, name)
        if user is None or hashed is None or user.disabled:
            return None
        return Identity(user.name, user.grants), hashed


def _digest(name: str, secret: str) -> bytes:
    return hashlib.sha256(f"{name}\0{secret}".encode()).digest()
