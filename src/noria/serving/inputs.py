"""From what a client sends to the model's inputs: checked, in order, and with what is looked up still to come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from noria.errors import InvalidInput, NoriaError
from noria.features import OnlineFeatures, ViewSpec
from noria.features.definition_watch import DefinitionWatch
from noria.optimize.bundle import NESTED, TEXTS, Bundle
from noria.serving.bare import bare
from noria.store.keyvalue import KeyValueStore, open_keyvalue

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
# The prediction log is MessagePack in daily folders: no wider integers, no days outside these years.
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_LAST_MILLI = 253_402_300_799_999

Value = float | bool | str | list[Any] | dict[str, Any] | None
_NUMBERS = frozenset((float, bool, type(None)))
_TEXTS = frozenset((str, type(None)))


class PredictionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row to predict. ``event_time`` is RFC 3339; now when it is left out.

    ``features`` are by name, or a list in the model's order. The same ``unit_id`` is answered by the same variant.
    """

    prediction_id: str = ""
    event_time: str = ""
    entities: dict[str, str | _Int64] = {}
    features: dict[str, Value] | list[Value] = {}
    unit_id: str = ""


class InputColumns:
    """The columns a client sends to one model: which are texts, in which order. Worked out once."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.names, self._taken = bundle.sent, len(bundle.request_columns)
        self._is_text = [bundle.kinds.get(name) in TEXTS for name in self.names]
        self._nested = {at: bundle.kinds[name] for at, name in enumerate(self.names) if is_nested(bundle, name)}
        self.has_texts = any(self._is_text)
        self.takes_texts = bool(bundle.string_places)
        sent = self._taken
        self._texts_found = frozenset(place - sent for place in bundle.string_places if place >= sent)

    def row(self, features: Mapping[str, Value] | Sequence[Value]) -> tuple[list[Any], list[str | None] | None]:
        """Numbers and texts of one row. Raises InvalidInput for a column missing, unknown or of the wrong kind."""
        names = self.names
        if features.__class__ is list:
            values: list[Any] = features
            if len(values) != len(names):
                raise self._wrong_width(len(values))
        else:
            assert isinstance(features, dict)
            try:
                values = [features[name] for name in names]
            except KeyError:
                features = self._with_nulls(features)
                values = [features[name] for name in names]
            if len(features) != len(names):
                raise self._wrong_columns(features)
        if not self.has_texts:
            if not _NUMBERS.issuperset(map(type, values)):
                raise self._wrong_kind(values)
            return values, [] if self.takes_texts else None
        return self._split(values)

    def looked_up(self, vector: Sequence[Any]) -> tuple[Sequence[Any], Sequence[str | None]]:
        """Numbers and texts among the values that the model's views gave."""
        if not self._texts_found:
            return vector, ()
        texts = [value for place, value in enumerate(vector) if place in self._texts_found]
        return [value for place, value in enumerate(vector) if place not in self._texts_found], texts

    def _with_nulls(self, features: Mapping[str, Value]) -> dict[str, Value]:
        """The columns of one row, null for the optional ones left out. Raises InvalidInput for others."""
        found = dict.fromkeys(self._bundle.optional) | dict(features)
        if not set(self.names) <= set(found):
            raise self._wrong_columns(found)
        return found

    def _split(self, values: Sequence[Value]) -> tuple[list[Any], list[str | None] | None]:
        if self._nested:
            values = [_nested_text(self._nested.get(at), value) for at, value in enumerate(values)]
        numbers = [value for value, is_text in zip(values, self._is_text, strict=True) if not is_text]
        texts = [value for value, is_text in zip(values, self._is_text, strict=True) if is_text]
        if not (_NUMBERS.issuperset(map(type, numbers)) and _TEXTS.issuperset(map(type, texts))):
            raise self._wrong_kind(values)
        if self._taken < len(values):  # the model does not take what is sent beside
            numbers = [value for value, is_text in self._own(values) if not is_text]
            texts = [value for value, is_text in self._own(values) if is_text]
        return numbers, texts if self.takes_texts else None  # type: ignore[return-value]

    def _own(self, values: Sequence[Value]) -> Iterator[tuple[Value, bool]]:
        return zip(values[: self._taken], self._is_text, strict=False)

    def named(self, features: Mapping[str, Value] | Sequence[Value]) -> Mapping[str, Value]:
        """The columns of one row by name; they were checked by ``row``."""
        return features if isinstance(features, dict) else dict(zip(self.names, features, strict=True))

    def _wrong_kind(self, values: Sequence[Value]) -> InvalidInput:
        for name, value, is_text in zip(self.names, values, self._is_text, strict=True):
            if value.__class__ not in (_TEXTS if is_text else _NUMBERS):
                return ill_typed_feature(name, value, "a text" if is_text else "a number")
        raise AssertionError(values)

    def _wrong_width(self, found: int) -> InvalidInput:
        names = ", ".join(self.names)
        return InvalidInput(
            f'"features" has {found} values, and the model takes {len(self.names)}',
            remedy=f"Send, in this order: {names}; or send them by name." if names else 'Leave "features" out.',
        )

    def _wrong_columns(self, given: Mapping[str, object]) -> InvalidInput:
        findings = [f"feature {name!r} is missing" for name in self.names if name not in given]
        if unknown := sorted(set(given) - set(self.names)):
            findings.append(f"unknown features: {', '.join(unknown)}")
        if self.names:
            remedy = f'Send "features" with {", ".join(self.names)}; the rest is looked up.'
        else:
            remedy = 'Leave "features" out; all inputs are looked up by "entities".'
        return InvalidInput("; ".join(findings), remedy=remedy)


def is_nested(bundle: Bundle, name: str) -> bool:
    """Whether a column holds whatever JSON does, as which it travels among the texts."""
    return bundle.kinds.get(name) in NESTED


def json_text(value: Any) -> str | None:
    """A nested column's value as it travels; a null is none."""
    return None if value is None else msgspec.json.encode(value).decode()


def _nested_text(kind: str | None, value: Value) -> Value:
    """A value of any column of a row as it travels; numbers of /predict are doubles, also where they are whole."""
    if kind is None:
        return value
    if kind == "any" and isinstance(value, float) and value.is_integer():
        return json_text(int(value))
    return json_text(value)


class NoColumns(InputColumns):
    """Of a model that takes tensors."""

    def row(self, _features: Mapping[str, Value] | Sequence[Value]) -> tuple[list[Any], list[str | None] | None]:
        """Raises InvalidInput."""
        raise InvalidInput(
            "this model takes tensors, not rows of features",
            remedy='Send them to /v2/models/NAME/infer, or as "inputs" to /invocations.',
        )


class OnlineInputs:
    """Looks up what the online store at a URL holds. Threads may share it.

    ``remote`` says that a look-up waits for a network, so that a loop must not wait for it. ``watch`` is told of rows
    that are of another definition than a model was trained on.
    """

    def __init__(self, online_store: str, watch: DefinitionWatch | None = None) -> None:
        self._url, self._watch = online_store, watch
        self.remote = not online_store.startswith(("sqlite:", "lmdb:"))
        self._store: KeyValueStore | None = None
        self._features: OnlineFeatures | None = None
        self._path: str | None = None
        self._inode = 0

    def vectors(
        self, views: Sequence[ViewSpec], asked: Sequence[tuple[Mapping[str, str | int], int]]
    ) -> Sequence[Sequence[Any] | NoriaError]:
        """The looked-up inputs of entities at their event times (UTC milliseconds), or why there are none."""
        if not views:
            return [()] * len(asked)
        try:
            self.refresh()
            assert self._features is not None
            return self._features.vectors(views, asked)
        except NoriaError as error:
            return [bare(error)] * len(asked)

    def refresh(self) -> None:
        """Open the online store; again when its file was replaced by another."""
        if self._store is not None and (self._path is None or _inode(self._path) == self._inode):
            return
        self.close()
        self._store = open_keyvalue(self._url, Path(), create=False)
        self._features = OnlineFeatures(self._store, self._watch)
        self._path = None if self._store.path is None else str(self._store.path)
        self._inode = 0 if self._path is None else _inode(self._path)

    def close(self) -> None:
        """Close the online store; the next look-up opens it again."""
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
            f"{text!r} is not an instant",
            remedy="Write RFC 3339 with a zone, from 1970 to 9999, such as 2013-03-01T12:00:00Z.",
        )
    return millis


def ill_typed_feature(name: str, value: object, wanted: str, part: str = "features") -> InvalidInput:
    """The error for one value of the wrong kind."""
    shown = msgspec.json.encode(value)[:60].decode(errors="replace")
    return InvalidInput(f"{part}[{name!r}] is {shown}, not {wanted}", remedy="/model/info names the columns.")


def ill_typed(document: Any) -> str:
    """The first ill-typed entity key of a decoded request, in words; empty when there is none."""
    rows = document.get("instances", [document]) if isinstance(document, dict) else []
    for row in rows if isinstance(rows, list) else []:
        given = row.get("entities") if isinstance(row, dict) else None
        for name, value in given.items() if isinstance(given, dict) else ():
            if not isinstance(value, str | int):
                return ill_typed_feature(name, value, "a string or int", "entities").message
    return ""


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino  # noqa: PTH116  a Path costs as much as the call, once a tick
    except FileNotFoundError:
        return 0
