"""The sender: takes what is due from the outbox and posts it, again and later when that fails.

One thread looks; each letter has a thread of its own, so that a slow receiver holds up nobody else's. Several server
processes may run one each: whoever claims a row first sends it.
"""

from __future__ import annotations

import random
import threading
from datetime import timedelta

import structlog

from noria.clock import Clock
from noria.errors import Forbidden, NoriaError, Unavailable
from noria.events import outbox
from noria.events.entities import DeliveryStatus, Letter
from noria.events.post import SECONDS, Answer, post
from noria.store.database import Database

MOST_ATTEMPTS = 8
"""After about four minutes of failing, a delivery has failed and the next one's turn comes."""

CLAIM = timedelta(seconds=6 * SECONDS)
"""Longer than any attempt takes: after that the sender must have died."""

_FIRST_PAUSE_SECONDS = 2.0
_LOOK_SECONDS = 1.0
_MOST_AT_ONCE = 8
_LAST_WORDS_SECONDS = 2.0
_SWEEP = timedelta(hours=1)
_log = structlog.get_logger()


class Sender:
    """Sends the webhooks' letters of one database from this process."""

    def __init__(self, database: Database, clock: Clock, *, allow_private: bool) -> None:
        self._database, self._clock, self._allow_private = database, clock, allow_private
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._swept = clock.now()
        self._looking: threading.Thread | None = None
        self._sending: set[threading.Thread] = set()

    def start(self) -> None:
        """Look for what is due from now on, unless there is no webhook. Safe to call again."""
        with self._database.read() as tx:
            needed = outbox.has_webhooks(tx)
        with self._lock:
            if needed and not self._stopped and self._looking is None:
                self._looking = threading.Thread(target=self._look, name="webhooks", daemon=True)
                self._looking.start()

    def stop(self) -> None:
        """Take nothing more, and give what is under way a moment; what does not make it is sent after the claim."""
        with self._lock:
            self._stopped = True
            threads = [*self._sending, *([self._looking] if self._looking else [])]
        self._wake.set()
        for thread in threads:
            thread.join(_LAST_WORDS_SECONDS / len(threads))

    def post(self, letter: Letter) -> Answer:
        """Send one letter now, past the outbox. Raises Forbidden or Unavailable."""
        return post(letter, at=self._clock.now(), allow_private=self._allow_private)

    def send_due(self) -> int:
        """Claim what is due and begin to send it: how many letters."""
        now, free = self._clock.now(), _MOST_AT_ONCE - len(self._sending)
        with self._database.read() as tx:
            if free < 1 or not outbox.is_due(tx, now):
                return 0
        with self._database.write() as tx:
            if now - self._swept > _SWEEP:
                outbox.forget(tx, before=now - outbox.KEPT)
                self._swept = now
            claimed = outbox.claim(tx, at=now, until=now + CLAIM, limit=free)
        for token, letter in claimed:
            thread = threading.Thread(target=self._send, args=(token, letter), name="webhook", daemon=True)
            with self._lock:
                self._sending.add(thread)
            thread.start()
        return len(claimed)

    def _look(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                self.send_due()
                if self._is_idle():
                    return
            except NoriaError as error:
                _log.warning("webhooks_not_read", reason=str(error))
            self._wake.wait(_LOOK_SECONDS)

    def _is_idle(self) -> bool:
        """Whether there is no webhook any more, and this thread may end."""
        with self._database.read() as tx:
            needed = outbox.has_webhooks(tx)
        with self._lock:
            if not needed:
                self._looking = None
            return not needed

    def _send(self, token: str, letter: Letter) -> None:
        try:
            self._attempt(token, letter)
        except NoriaError as error:  # the claim runs out, and it is sent once more
            _log.warning("webhook_not_settled", delivery_id=letter.delivery_id, reason=str(error))
        finally:
            with self._lock:
                self._sending.discard(threading.current_thread())
            self._wake.set()

    def _attempt(self, token: str, letter: Letter) -> None:
        final = False
        try:
            answer = self.post(letter)
            reason = "" if 200 <= answer.status < 300 else f"HTTP {answer.status}: {answer.body[:200]}"
        except (Forbidden, Unavailable) as error:
            reason, final = error.message, isinstance(error, Forbidden)
        now = self._clock.now()
        with self._database.write() as tx:
            attempts = outbox.attempts_of(tx, token)
            if not reason:
                outbox.settle(tx, token, DeliveryStatus.DELIVERED, at=now)
            elif final or attempts >= MOST_ATTEMPTS:
                outbox.settle(tx, token, DeliveryStatus.FAILED, at=now, reason=reason)
                _log.warning("webhook_failed", delivery_id=letter.delivery_id, attempts=attempts, reason=reason)
            else:
                outbox.postpone(tx, token, due=now + _pause(attempts), reason=reason)


def _pause(attempts: int) -> timedelta:
    """Twice as long after each attempt, give or take a half, so that many senders do not come back together."""
    return timedelta(seconds=_FIRST_PAUSE_SECONDS * 2 ** (attempts - 1) * random.uniform(0.5, 1.5))
