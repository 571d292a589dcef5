"""From a request to an input vector: what the client sends, then what is looked up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from noria.errors import InvalidInput
from noria.features import OnlineFeatures
from noria.optimize.bundle import Bundle
from noria.store.keyvalue import KeyValueStore, open_keyvalue

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
# The prediction log is MessagePack in daily folders: no wider integers, no days outside these years.
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_LAST_MILLI = 253_402_300_799_999


class PredictionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row to predict. ``event_time`` is RFC 3339; now when it is left out."""

    prediction_id: str = ""
    event_time: str = ""
    entities: dict[str, str | _Int64] = {}
    features: dict[str, float | bool | None] = {}


class Inputs:
    """Assembles input vectors, looking up what the online store at a URL holds. Threads may share it.

    ``remote`` says that a look-up waits for a network, so that a loop must not wait for it.
    """

    def __init__(self, online_store: str) -> None:
        self._url = online_store
        self.remote = not online_store.startswith(("sqlite:", "lmdb:"))
        self._store: KeyValueStore | None = None
        self._features: OnlineFeatures | None = None
        self._path: str | None = None
        self._inode = 0

    def row(self, bundle: Bundle, request: PredictionRequest, event_time: int) -> list[float | None]:
        """The vector of ``request`` as known at ``event_time`` (UTC milliseconds).

        Raises InvalidInput for a column or join key missing or unknown, NotFound for an unknown entity.
        """
        given = request.features
        try:
            row: list[float | None] = [
                value if value.__class__ is float or value is None else float(value)
                for value in [given[name] for name in bundle.request_columns]
            ]
        except KeyError:
            raise _wrong_columns(bundle, given) from None
        if len(given) != len(row):
            raise _wrong_columns(bundle, given)
        if bundle.views:
            if self._features is None:
                self.refresh()
            assert self._features is not None
            row += self._features.vector(bundle.views, request.entities, event_time)
        return row

    def refresh(self) -> None:
        """Open the online store; again when its file was replaced by another."""
        if self._store is not None and (self._path is None or _inode(self._path) == self._inode):
            return
        self.close()
        self._store = open_keyvalue(self._url, Path())
        self._features = OnlineFeatures(self._store)
        self._path = None if self._store.path is None else str(self._store.path)
        self._inode = 0 if self._path is None else _inode(self._path)

    def close(self) -> None:
        """Close the online store; the next ``refresh`` opens it again."""
        if self._store is not None:
            self._store.close()
        self._store = self._features = None


def parse_instant(text: str) -> int:
    """UTC milliseconds of an RFC 3339 text with a zone, years 1970 to 9999. Raises InvalidInput."""
    try:
        millis = round(msgspec.convert(text, _Instant).timestamp() * 1000)
    except (msgspec.ValidationError, OverflowError, ValueError):
        millis = -1
    if not 0 <= millis <= _LAST_MILLI:
        raise InvalidInput(
            f"{text!r} is not an instant", remedy="Write RFC 3339 with a zone, such as 2013-03-01T12:00:00Z."
        )
    return millis


def ill_typed(document: Any) -> str:
    """The first ill-typed feature or entity key of a decoded request, in words; empty when there is none."""
    rows = document.get("instances", [document]) if isinstance(document, dict) else []
    for row in rows if isinstance(rows, list) else []:
        for part, kinds, word in (("features", (float, int), "a number"), ("entities", (str, int), "a string or int")):
            given = row.get(part) if isinstance(row, dict) else None
            for name, value in given.items() if isinstance(given, dict) else ():
                missing_allowed = part == "features" and value is None
                if not missing_allowed and not isinstance(value, kinds):
                    return f"{part}[{name!r}] is {msgspec.json.encode(value)[:60].decode(errors='replace')}, not {word}"
    return ""


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino  # noqa: PTH116  a Path costs as much as the call, once a tick
    except FileNotFoundError:
        return 0


def _wrong_columns(bundle: Bundle, given: Mapping[str, object]) -> InvalidInput:
    missing = [name for name in bundle.request_columns if name not in given]
    unknown = sorted(set(given) - set(bundle.request_columns))
    findings = [f"feature {name!r} is missing" for name in missing]
    if unknown:
        findings.append(f"unknown features: {', '.join(unknown)}")
    if bundle.request_columns:
        remedy = f'Send "features" with {", ".join(bundle.request_columns)}; the rest is looked up.'
    else:
        remedy = 'Leave "features" out; all inputs are looked up by "entities".'
    return InvalidInput("; ".join(findings), remedy=remedy)
