"""A watch on the chain for what is looked at again and again: the whole once, then only what is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from noria.audit.chain import Verification
from noria.audit.verification import verify, verify_since
from noria.clock import Clock
from noria.store.database import Database


@dataclass(frozen=True, slots=True)
class Watched:
    """``entries`` hold together; the first ``whole_entries`` did so with all governed records at ``whole_at``."""

    entries: int
    whole_entries: int
    whole_at: datetime


class ChainWatch:
    """Remembers, in this process, how far the chain was verified. Safe to share between threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._known: tuple[Verification, Watched] | None = None

    def look(self) -> Watched:
        """Verify what is new since the last look, everything at the first. Raises BrokenChain.

        An old entry or a record that was changed since is found by ``verify`` alone; a chain cut short is found here.
        """
        known = self._known  # before the snapshot is taken, or another thread might know more than is in it
        with self._database.read() as tx:
            if known is None:
                found = verify(tx, tracking=False)
                watched = Watched(found.entries, found.entries, self._clock.now())
            else:
                found, whole = verify_since(tx, known[0]), known[1]
                watched = Watched(found.entries, whole.whole_entries, whole.whole_at)
        self._known = (found, watched)
        return watched
