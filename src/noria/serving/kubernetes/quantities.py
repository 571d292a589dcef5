"""Quantities as Kubernetes writes them: 500m of a processor, 512Mi of memory."""

from __future__ import annotations

import re
from decimal import Decimal

from noria.errors import InvalidInput

_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<suffix>m|[kMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_DECIMAL = {name: Decimal(1000) ** power for power, name in enumerate(["", "k", "M", "G", "T", "P", "E"])}
_BINARY = {f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", 1)}


def cpu(text: str, name: str = "cpu") -> Decimal:
    """Processors. Raises InvalidInput for what is no such quantity, or less than a thousandth."""
    found = _parsed(text, name, "Write processors, such as 2, 0.5 or 500m.")
    if found >= 1024 or found * 1000 < 1:
        raise InvalidInput(f"{name} {text!r} is {found:g} processors", remedy="Write thousandths as 500m.")
    return found


def memory(text: str, name: str = "memory") -> Decimal:
    """Bytes. Raises InvalidInput for what is no such quantity, or less than a mebibyte: `m` means thousandths."""
    found = _parsed(text, name, "Write bytes, such as 512Mi or 2Gi.")
    if found < 1024**2:
        raise InvalidInput(f"{name} {text!r} is {found:g} bytes", remedy="Write mebibytes as 512Mi, gibibytes as 2Gi.")
    return found


def check_at_most(request: Decimal, limit: Decimal, name: str) -> None:
    """Raises InvalidInput for a request above its limit, which no cluster would take."""
    if request > limit:
        raise InvalidInput(
            f"the request of {name} is above its limit", remedy=f"Raise --{name}-limit, or leave it out."
        )


def _parsed(text: str, name: str, remedy: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{name} {text!r} is no quantity", remedy=remedy)
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        return number * Decimal(10) ** int(suffix[1:])
    if suffix == "m":
        return number / 1000
    return number * (_BINARY.get(suffix) or _DECIMAL[suffix])
