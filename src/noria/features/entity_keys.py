"""Under which bytes an entity's row lies online: the view, then the values of its join keys, each with its kind.

MessagePack says where each part ends and whether it is a number or a text, so 1 and "1", or ("a", "bc") and
("ab", "c"), are four different entities.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import msgspec

from noria.clock import as_utc
from noria.errors import InvalidInput

KeyPart = str | int | float | bool | bytes | datetime
"""A value of a join key as a client may send it."""

_encode = msgspec.msgpack.Encoder().encode
_LONGEST_NAME_BYTES, _LONGEST_PARTS_BYTES = 200, 300  # some stores take keys of 511 bytes
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def view_prefix(view: str) -> bytes:
    """What all keys of a view begin with, and no key of another."""
    return _shortened(_encode(view), _LONGEST_NAME_BYTES)


def pack_key(prefix: bytes, parts: Sequence[object]) -> bytes:
    """The key of the entity that ``parts`` name. Raises InvalidInput for what no store holds."""
    return prefix + _pack(parts)


def pack_parts(entities: Sequence[Sequence[object]]) -> list[bytes]:
    """What the keys of many entities end with, in all views; ``pack_key`` one by one would take three times as long."""
    try:
        packed = list(map(_encode, entities))
    except (OverflowError, UnicodeEncodeError):
        packed = []
    return packed if packed and max(map(len, packed)) <= _LONGEST_PARTS_BYTES else list(map(_pack, entities))


def _pack(parts: Sequence[object]) -> bytes:
    try:
        packed = _encode(parts)
    except (OverflowError, UnicodeEncodeError):
        raise InvalidInput(
            f"entity key {parts!r:.200} is beyond 64 bits, or no Unicode text",
            remedy="Send whole numbers below 2**63, or texts.",
        ) from None
    return packed if len(packed) <= _LONGEST_PARTS_BYTES else _shortened(packed, 0)


def other_keys(prefix: bytes, parts: Sequence[object]) -> list[bytes]:
    """The keys the same entity may lie under when its view does not say whether join keys are numbers or texts."""
    return [pack_key(prefix, others) for others in list(product(*map(_readings, parts)))[1:]]


def converter(type_name: str) -> Callable[[object], object]:
    """What turns a join key as sent into one as stored, for a feature type's name; "" is any. Raises TypeError."""
    return _CONVERTERS.get(type_name, _as_sent)


PLAIN: Mapping[str, frozenset[type]] = {
    "": frozenset((int, str)),
    "Int32": frozenset((int,)),
    "Int64": frozenset((int,)),
    "String": frozenset((str,)),
}
"""The Python types of values that need no conversion."""


def _shortened(packed: bytes, longest: int) -> bytes:
    """``packed``, or its hash as MessagePack bytes, which neither a name nor a list of parts begins like."""
    return packed if len(packed) <= longest else _encode(hashlib.sha256(packed).digest())


def _readings(part: object) -> tuple[object, ...]:
    """``part``, and the same number as text or the other way round."""
    if isinstance(part, str) and part.isascii() and part.lstrip("-").isdigit() and str(int(part)) == part:
        return part, int(part)
    return (part, str(part)) if part.__class__ is int else (part,)


def _integer(value: object) -> int:
    if value.__class__ is int:
        return value
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    return str(value) if isinstance(value, str) else str(_integer(value))


def _number(value: object) -> int | float:
    number = float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    if not isinstance(number, float):
        raise TypeError
    return int(number) if number.is_integer() else number


def _of_kind(kind: type) -> Callable[[object], object]:
    def same(value: object) -> object:
        if isinstance(value, kind):
            return value
        raise TypeError

    return same


def _micros(value: object) -> int:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (as_utc(value) - _EPOCH) // timedelta(microseconds=1)
    return _integer(value)


def _as_sent(value: object) -> object:
    if isinstance(value, bytes | bool):
        return value
    if isinstance(value, str):
        return str(value)  # of a kind of its own, such as NumPy's, made plain
    if isinstance(value, datetime):
        return _micros(value)
    return _number(value) if isinstance(value, float) else _integer(value)


_CONVERTERS: dict[str, Callable[[object], object]] = {
    "Int32": _integer,
    "Int64": _integer,
    "String": _text,
    "Float32": _number,
    "Float64": _number,
    "Bool": _of_kind(bool),
    "Bytes": _of_kind(bytes),
    "UnixTimestamp": _micros,
}
