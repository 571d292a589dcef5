"""What streams carry, and what is asked of a broker on either side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from noria.errors import Forbidden, InvalidData, Unauthenticated

SOURCE_HEADER = "noria-source"
"""Where the message that was answered stands in its stream."""
KEY_HEADER = "noria-idempotency-key"
"""The same for every answer to one message, however often it is given: who has seen it drops the repeat."""
REASON_HEADER = "noria-reason"
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""What every broker takes as a header's name: RFC 9110's tokens."""
SIZE_HEADER = "noria-size-bytes"
"""How large the body was that a notice stands for."""

OUR_HEADERS = frozenset((SOURCE_HEADER, KEY_HEADER, REASON_HEADER, SIZE_HEADER))


class NotTaken(InvalidData):
    """Answers that a broker takes from nobody, however often they are sent; all the others of their batch it has.

    ``faults`` says what is wrong with each, by its idempotency key.
    """

    def __init__(self, where: str, faults: Mapping[str, str]) -> None:
        key, why = next(iter(faults.items()))
        super().__init__(
            f"{where} does not take {len(faults)} messages, as that of {key}: {why}",
            remedy="Raise what the broker takes, or send less.",
        )
        self.faults = dict(faults)


@dataclass(frozen=True, slots=True)
class Kept:
    """What goes back into Kafka as it came: headers of any bytes, several of a name, and whether there is no body."""

    headers: Sequence[tuple[str, bytes | None]]
    is_null: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was consumed.

    ``position`` says where it stands: topic/partition/offset-time, stream/id or stream/sequence-time.
    ``partition`` is what order is kept within; ``handle`` is what its broker acknowledges it by. A ``fault`` says why
    it could not be read as it is: it is set aside. ``kept`` is what Kafka alone has of it.
    """

    position: str
    body: bytes
    partition: str = ""
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    handle: Any = None
    fault: str = ""
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A message to produce. ``idempotency_key`` depends on the message it answers alone; what is ``kept`` of that one
    goes into Kafka in place of ``headers`` of the same names."""

    idempotency_key: str
    body: bytes
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: Kept | None = None

    @property
    def all_headers(self) -> dict[str, str]:
        """Its headers with the idempotency key."""
        return {**self.headers, KEY_HEADER: self.idempotency_key}


class Reader(Protocol):
    """Consumes one stream as a member of a group. Every method raises Unavailable while the broker cannot be used, and
    works again by itself once it can, and Unauthenticated or Forbidden where the broker refuses whoever asks; none is
    called while another one runs. ``hold_seconds`` is how often what was received is to be held."""

    hold_seconds: float

    async def receive(self, most: int, seconds: float) -> Sequence[Message]:
        """The next messages, in the order of their partitions; nothing when none comes in time."""

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """These need not be consumed again, by nobody of the group."""

    async def hold(self, messages: Sequence[Message]) -> None:
        """Keep what was received from being given to others, while it takes longer."""

    async def lag(self) -> int | None:
        """How many messages wait for the group, None where the broker does not say."""

    async def close(self) -> None:
        """Leave the group; what was not acknowledged is consumed again."""


class Writer(Protocol):
    """Produces into one stream."""

    async def send(self, answers: Sequence[Answer]) -> None:
        """Return once the broker has all of them, in order. Raises Unavailable when it is not known to have them,
        NotTaken when it has all but those whose size or headers it takes from nobody, and Unauthenticated or Forbidden
        where it refuses whoever asks. With no answers it only looks whether the broker takes some."""

    async def close(self) -> None:
        """Let go of the connection."""


def unauthenticated(where: str, cause: object) -> Unauthenticated:
    """The error for credentials that a broker does not take: waiting does not mend them."""
    return Unauthenticated(
        f"{where} does not take the credentials: {cause}",
        remedy="Check user and password in the URL; ${NAME} there stands for the environment's value.",
    )


def forbidden(where: str, cause: object) -> Forbidden:
    """The error for what a broker does not let this user do."""
    return Forbidden(
        f"{where} cannot be used by this user: {cause}", remedy="Permit it at the broker, or name another user."
    )
