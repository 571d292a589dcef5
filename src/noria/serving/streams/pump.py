"""Consume, predict, produce: at least once, in the order of partitions, and never faster than the sink takes it.

A batch is consumed, answered, produced, and only then acknowledged; the next one is consumed after that. So no more
than a batch is ever in flight, and what a crash leaves unacknowledged is consumed again: its answers carry the same
idempotency keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import structlog

from noria.errors import DeadlineExceeded, Forbidden, InvalidData, InvalidInput, NoriaError, Overloaded, Unavailable
from noria.serving.streams.counts import StreamCounts
from noria.serving.streams.messages import (
    HEADER_NAME,
    REASON_HEADER,
    SIZE_HEADER,
    SOURCE_HEADER,
    Answer,
    Message,
    NotTaken,
    Reader,
    Writer,
)

T = TypeVar("T")
Predict = Callable[[Message], Awaitable[bytes]]
"""The answer to a message. Raises a NoriaError: what is away or too busy is asked again, all else is the message's."""

_log = structlog.get_logger()
_AWAY = (Unavailable, Overloaded, DeadlineExceeded)
_DEADLINES = 3
"""How often a message may run out of time before it is taken to be its own fault."""
_RECEIVE_SECONDS = 0.5
_LOOK_SECONDS = 5.0
_TELL_SECONDS = 30.0
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 10.0
_CARRIED = ("traceparent", "tracestate", "content-type")
"""Headers of a message that its answer keeps."""
_LONGEST_REASON = 1000
"""Characters of a reason: it may quote the message, which may be of any length."""
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would end a header's line."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Where messages come from and go to. Without ``dead_letters`` what has no answer is logged and let go."""

    source: Reader
    sink: Writer
    dead_letters: Writer | None = None


class Stopped(Exception):
    """The end was asked for while something was away."""


class Pump:
    """One loop over one stream. ``most`` messages are in flight at once."""

    def __init__(self, ends: Ends, predict: Predict, counts: StreamCounts, most: int) -> None:
        self._ends, self._predict, self._counts, self._most = ends, predict, counts, most
        self._stopping = asyncio.Event()
        self._looked_at = 0.0

    def stop(self) -> None:
        """End once what is in flight is produced and acknowledged; at once when that cannot be."""
        self._stopping.set()

    async def run(self) -> None:
        """Pump until ``stop``. Raises Unauthenticated, Forbidden, InvalidInput for what waiting does not mend."""
        watcher = asyncio.create_task(self._watch())
        try:
            await self._check()
            while not self._stopping.is_set():
                await self._turn()
        except Stopped:
            pass
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            await self._close()

    async def _check(self) -> None:
        """Hear of wrong credentials before the first message, not with it; whoever is away is waited for later."""
        for target in (self._ends.sink, self._ends.dead_letters):
            if target is not None:
                with contextlib.suppress(*_AWAY):
                    await target.send([])

    async def _turn(self) -> None:
        """One batch from its source to its acknowledgement."""
        source = self._ends.source
        await self._look()
        messages = await self._insist("source", lambda: source.receive(self._most, _RECEIVE_SECONDS))
        if not messages:
            return
        self._counts.consumed.inc(len(messages))
        self._counts.in_flight.set(len(messages))
        work = asyncio.create_task(self._deliver(messages))
        try:
            while not (await asyncio.wait([work], timeout=source.hold_seconds))[0]:
                with contextlib.suppress(Unavailable):
                    await source.hold(messages)
                await self._look()
        finally:
            work.cancel()  # where holding fails for good; what is done takes no notice
        work.result()
        await self._insist("acknowledge", lambda: source.acknowledge(messages))
        self._counts.in_flight.set(0)

    async def _deliver(self, messages: Sequence[Message]) -> None:
        """Answer messages and produce the answers, in their order."""
        found = await asyncio.gather(*map(self._answered, messages))
        answers = [
            _answer(message, one) for message, one in zip(messages, found, strict=True) if isinstance(one, bytes)
        ]
        refused = [(message, one) for message, one in zip(messages, found, strict=True) if isinstance(one, NoriaError)]
        if answers:
            faults = await self._send("sink", self._ends.sink, answers)
            self._counts.produced.inc(len(answers) - len(faults))
            refused += [(one, _not_taken(faults[one.position])) for one in messages if one.position in faults]
        if refused:
            await self._set_aside(refused)

    async def _answered(self, message: Message) -> bytes | NoriaError:
        if message.fault:
            return InvalidInput(message.fault, remedy="Look at what produced it.")
        late = 0
        for wait in _waits():
            try:
                return await self._predict(message)
            except DeadlineExceeded as error:
                late += 1
                if late == _DEADLINES:
                    return error
                fault: NoriaError = error
            except (Unavailable, Overloaded) as error:
                fault = error
            except NoriaError as error:
                return error
            except Exception as error:  # whatever it is, the messages behind this one are not held up
                _log.exception("message_failed", position=message.position)
                return NoriaError(f"the message failed: {type(error).__name__}", remedy="The log says why.")
            await self._wait("predict", fault, wait)
        raise AssertionError("it waits for ever")

    async def _set_aside(self, refused: Iterable[tuple[Message, NoriaError]]) -> None:
        """Produce what has no answer into the dead-letter stream."""
        letters = [_dead_letter(message, error) for message, error in refused]
        self._counts.dead_lettered.inc(len(letters))
        target = self._ends.dead_letters
        if target is None:
            for letter in letters:
                _log.warning("message_refused", **_about(letter))
            return
        faults = await self._send("dead_letters", target, letters)
        notices = [
            _notice(letter, faults[letter.idempotency_key]) for letter in letters if letter.idempotency_key in faults
        ]
        for notice in notices:
            _log.warning("dead_letter_not_taken", **_about(notice))
        if notices:
            await self._send("dead_letters", target, notices)  # what takes not even these is told in the log alone

    async def _send(self, what: str, target: Writer, answers: Sequence[Answer]) -> Mapping[str, str]:
        """Produce them; returns why some are taken from nobody, by idempotency key. The others are there."""
        try:
            await self._insist(what, lambda: target.send(answers))
        except NotTaken as error:
            return error.faults
        return {}

    async def _insist(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do it, however often it takes until what it needs is there. Raises Stopped when the end was asked for."""
        for wait in _waits():
            try:
                return await action()
            except _AWAY as error:
                await self._wait(what, error, wait)
        raise AssertionError("it waits for ever")

    async def _wait(self, what: str, error: NoriaError, seconds: float) -> None:
        self._counts.retries.labels(what).inc()
        _log.warning("stream_waits", what=what, wait_seconds=seconds, reason=error.message)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        if self._stopping.is_set():
            raise Stopped

    async def _look(self) -> None:
        """See how far behind the group is, once in a while."""
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        with contextlib.suppress(Unavailable, Forbidden):  # a broker may let its users know less than all
            if (lag := await self._ends.source.lag()) is None:
                self._looked_at = 0.0  # there may be some with the next turn
            else:
                self._counts.lag.set(lag)

    async def _watch(self) -> None:
        """Keep the totals in the log."""
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            _log.info("stream_pumped", **self._counts.totals())

    async def _close(self) -> None:
        ends = self._ends
        for end in (ends.source, ends.sink, ends.dead_letters):
            if end is None:
                continue
            try:
                await end.close()
            except Exception:  # the others are closed all the same
                _log.exception("stream_not_closed")
        _log.info("stream_stopped", **self._counts.totals())


def _answer(message: Message, body: bytes) -> Answer:
    headers = {name: value for name, value in message.headers.items() if name.lower() in _CARRIED}
    return Answer(message.position, body, message.key, _cleaned({**headers, SOURCE_HEADER: message.position}))


def _dead_letter(message: Message, error: NoriaError) -> Answer:
    """The message as it came, with where it stood and why it has no answer."""
    about = {SOURCE_HEADER: message.position, REASON_HEADER: f"{error.code}: {error.message}"[:_LONGEST_REASON]}
    return Answer(message.position, message.body, message.key, _cleaned({**message.headers, **about}), message.kept)


def _notice(letter: Answer, fault: str) -> Answer:
    """What stands for a dead letter that its stream does not take: why, whose place it has, and how large it was."""
    about = {
        SOURCE_HEADER: letter.headers[SOURCE_HEADER],
        REASON_HEADER: f"{letter.headers[REASON_HEADER]}; left out here: {fault}",
        SIZE_HEADER: str(len(letter.body)),
    }
    return Answer(letter.idempotency_key, json.dumps(about).encode(), None, about)


def _about(letter: Answer) -> dict[str, str]:
    """What the log says of a dead letter: never what is in it."""
    return {
        name: letter.headers[name] for name in (SOURCE_HEADER, REASON_HEADER, SIZE_HEADER) if name in letter.headers
    }


def _not_taken(fault: str) -> InvalidData:
    return InvalidData(f"the sink does not take the answer: {fault}", remedy="Raise what the broker takes.")


def _cleaned(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that every broker takes: a producer may have written any bytes into its own."""
    return {_name(name): _NO_TEXT.sub(" ", _encodable(value)) for name, value in headers.items()}


def _name(name: str) -> str:
    """Where it is no header's name it is percent-encoded, so that two stay two."""
    return name if HEADER_NAME.fullmatch(name) else quote(_encodable(name), safe="") or "%"


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _waits() -> Iterable[float]:
    seconds = _FIRST_WAIT_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, _LONGEST_WAIT_SECONDS)
