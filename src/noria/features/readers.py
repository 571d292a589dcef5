"""How rows of one feature view are read: keys out of what clients send, values and statuses out of packed rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

import msgspec

from noria.errors import InvalidData, InvalidInput, NotFound
from noria.features.definition_watch import DefinitionWatch, differs
from noria.features.definitions import FeatureView, OnMissing, Projection
from noria.features.entity_keys import PLAIN, KeyPart, converter, view_prefix
from noria.features.packing import HEAD, Layout, layout_key, parse_layout, unpacker
from noria.features.tails import TailSpec, features_of, open_tail
from noria.store.keyvalue import KeyValueStore
from noria.store.stamps import SIGN, STAMP_BYTES, unpack_stamp

_HEAD_BYTES = HEAD.size
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(IntEnum):
    """Why a value looked up is what it is; spelled and numbered as in Feast."""

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    OUTSIDE_MAX_AGE = 4


class ViewSpec(msgspec.Struct, frozen=True, cache_hash=True):
    """What a gateway must know of a feature view: no source, no frames.

    ``key_types`` and ``types`` are the names of the types of join keys and fields, "" where nobody said one;
    ``definition`` is the view's content hash; ``tail`` says how its aggregations are read. Specs written before they
    were kept have none of them. ``alias`` is another name for it, ``join_keys`` are what requests call its keys.
    """

    name: str
    join_keys: tuple[str, ...]
    fields: tuple[str, ...]
    ttl_millis: float | None
    on_missing: OnMissing
    key_types: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    definition: str = ""
    tail: TailSpec | None = None
    alias: str = ""

    @classmethod
    def of(cls, view: FeatureView | Projection, features: Sequence[str] = ()) -> ViewSpec:
        """The spec that travels with a model: of some features, in that order, or of all."""
        used = view if isinstance(view, Projection) else Projection(view, view.fields)
        view, columns, fields = used.view, used.join_key_map, tuple(features or used.features)
        types = {one.name: str(one.dtype) for one in view.features}
        keys = view.key_types()
        return cls(
            view.name,
            tuple(columns.get(key, key) for key in view.join_keys),
            fields,
            None if view.ttl is None else view.ttl / timedelta(milliseconds=1),
            view.on_missing,
            tuple(str(keys.get(name, "")) for name in view.join_keys),
            tuple(types[name] for name in fields),
            view.definition,
            TailSpec.of(view) if view.aggregations else None,
            used.name,
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What its features are called beside those of other views."""
        return tuple(f"{self.alias or self.name}__{field}" for field in self.fields)


class FeatureColumn(msgspec.Struct):
    """One feature of every entity asked for. Event times are UTC microseconds, None for an entity without a row."""

    values: Sequence[Any]
    statuses: Sequence[Status]
    event_timestamps: Sequence[int | None]


class Found(msgspec.Struct):
    """What a view has of the entities asked for, a row an entity; ``found[field]`` is one feature of all of them.

    ``nulls`` say what it means that a value is None. Event times are UTC microseconds, None for an entity without a
    row.
    """

    fields: Sequence[str]
    values: Sequence[Sequence[Any]]
    nulls: Sequence[Sequence[Status]]
    event_timestamps: Sequence[int | None]

    def __getitem__(self, field: str) -> FeatureColumn:
        place = self.fields.index(field)
        values = [row[place] for row in self.values]
        why = [row[place] for row in self.nulls]
        statuses = [null if value is None else Status.PRESENT for value, null in zip(values, why, strict=True)]
        return FeatureColumn(values, statuses, self.event_timestamps)

    def columns(self) -> Sequence[list[Any]]:
        """The values, a new list a field."""
        return [[*values] for values in zip(*self.values, strict=True)] if self.values else [[] for _ in self.fields]


class Reader:
    """How rows of one view are read: what a spec says, worked out once."""

    def __init__(self, spec: ViewSpec, store: KeyValueStore, watch: DefinitionWatch | None = None) -> None:
        self._watch = watch
        self.spec, self.prefix = spec, view_prefix(spec.name)
        self._fields, self._tail = spec.fields, spec.tail
        self._store = store
        self.key_types = spec.key_types or ("",) * len(spec.join_keys)
        self.guesses = "" in self.key_types
        self._converters = tuple(map(converter, self.key_types))
        plain = [PLAIN.get(kind, frozenset()) for kind in self.key_types]
        self._part_readers = tuple(zip(spec.join_keys, plain, self._converters, strict=True))
        self._only_key = self._part_readers[0] if len(self._part_readers) == 1 else None
        self._ttl = None if spec.ttl_millis is None else round(spec.ttl_millis * 1000)
        self._plans: dict[bytes, Plan] = {}
        self._decode = msgspec.msgpack.Decoder(list).decode
        self._nothing = [None] * len(spec.fields)
        self._not_found = (Status.NOT_FOUND,) * len(spec.fields)
        self._too_old = (Status.OUTSIDE_MAX_AGE,) * len(spec.fields)
        self._null = (Status.NULL_VALUE,) * len(spec.fields)

    def parts_of(self, entities: Mapping[str, KeyPart]) -> Sequence[object]:
        """The join keys of one entity, as stored."""
        spec = self.spec
        try:
            return [
                value if (value := entities[name]).__class__ in plain else convert(value)
                for name, plain, convert in self._part_readers
            ]
        except KeyError as missing:
            raise InvalidInput(
                f"entity key {missing.args[0]!r} is missing; feature view {spec.name!r} is looked up by it",
                remedy=f'Send "entities" with {", ".join(spec.join_keys)}.',
            ) from None
        except (TypeError, ValueError, OverflowError):
            raise self._wrong_kind([[entities[name]] for name in spec.join_keys]) from None

    def parts(self, entities: Mapping[str, Sequence[KeyPart]], count: int) -> Sequence[Sequence[object]]:
        """The join keys of ``count`` entities, as stored."""
        if self._only_key is not None:  # the usual case, at once
            name, plain, _ = self._only_key
            if plain.issuperset(map(type, entities[name])):
                return [(value,) for value in entities[name]]
        columns = [entities[name] for name in self.spec.join_keys]
        if not columns:
            return [()] * count
        try:
            converted = [
                column if plain.issuperset(map(type, column)) else list(map(convert, column))
                for (_, plain, convert), column in zip(self._part_readers, columns, strict=True)
            ]
        except (TypeError, ValueError, OverflowError):
            raise self._wrong_kind(columns) from None
        return list(zip(*converted, strict=True))

    def required(self, row: bytes | None, now: int, entities: Mapping[str, KeyPart]) -> Sequence[float | None]:
        """The values of a row, for a model."""
        spec = self.spec
        if spec.tail is not None:
            return self._aggregated(row, now, spec.tail)
        if row is None:
            if spec.on_missing == "null":
                return self._nothing
            raise NotFound(
                f"no features of view {spec.name!r} for { {name: entities[name] for name in spec.join_keys} }",
                remedy="Check the key, or materialize the view with this entity in its source.",
            )
        event, _, layout = HEAD.unpack_from(row)
        if self._ttl is not None and now - event > self._ttl:
            return self._nothing
        values: list[Any] = self._decode(row[_HEAD_BYTES:])
        plan = self._plans.get(layout) or self._plan(layout)
        if plan.changed and self._watch is not None:
            self._watch.meet(spec, plan.changed)
        if not plan.moves:
            return values
        if spec.on_missing == "error" and plan.missing:
            raise InvalidData(
                f"feature view {spec.name!r} is stored without {', '.join(plan.missing)}, which the model takes",
                remedy="Materialize the view with the definition the model was trained on, or train again.",
            )
        return plan.values(values)

    def found(self, rows: Sequence[bytes | None], now: int) -> Found:
        """What stored rows hold; ``now`` is UTC microseconds and ``SIGN``."""
        if self._tail is not None:
            return self._found_aggregated(rows, now, self._tail)
        values: list[Sequence[Any]] = []
        nulls: list[Sequence[Status]] = []
        times: list[int | None] = []
        unpack, decode, ttl = HEAD.unpack_from, self._decode, self._ttl
        known = plan = None
        for row in rows:
            if row is None:
                times.append(None)
                values.append(self._nothing)
                nulls.append(self._not_found)
                continue
            event, _, layout = unpack(row)
            times.append(event - SIGN)
            if ttl is not None and now - event > ttl:
                values.append(self._nothing)
                nulls.append(self._too_old)
                continue
            if plan is None or layout != known:
                known, plan = layout, self._plans.get(layout) or self._plan(layout)
            found = decode(row[_HEAD_BYTES:])
            values.append(plan.values(found) if plan.moves else found)
            nulls.append(plan.nulls)
        return Found(self._fields, values, nulls, times)

    def _aggregated(self, row: bytes | None, now: int, tail: TailSpec) -> list[Any]:
        """What the events kept of an entity come to; of one without events, counts of nothing and nulls."""
        at = _EPOCH + timedelta(microseconds=now - SIGN)
        held = open_tail(None if row is None else row[STAMP_BYTES:], tail)
        if self._watch is not None and differs(self.spec.definition, held.definition):
            self._watch.meet(self.spec, held.definition)
        found = features_of(held, tail, at)
        return [found[name] for name in self.spec.fields]

    def _found_aggregated(self, rows: Sequence[bytes | None], now: int, tail: TailSpec) -> Found:
        values = [self._aggregated(row, now, tail) for row in rows]
        nulls = [self._not_found if row is None else self._null for row in rows]
        times = [None if row is None else unpack_stamp(row)[0] for row in rows]
        return Found(self.spec.fields, values, nulls, times)

    def _plan(self, layout_id: bytes) -> Plan:
        """How to read rows of a layout."""
        if layout_id not in self._plans:
            stored = self._store.get_many([layout_key(layout_id)])[0]
            self._plans[layout_id] = _plan(self.spec, parse_layout(stored, self.spec.name))
        return self._plans[layout_id]

    def _wrong_kind(self, columns: Sequence[Sequence[KeyPart]]) -> InvalidInput:
        """The first value that is no such key, in words."""
        for name, kind, convert, column in zip(
            self.spec.join_keys, self.key_types, self._converters, columns, strict=True
        ):
            for value in column:
                try:
                    convert(value)
                except (TypeError, ValueError, OverflowError):
                    wanted = kind or "a text or a whole number"
                    return InvalidInput(
                        f"entity key {name!r} of feature view {self.spec.name!r} is {value!r:.80}, not {wanted}",
                        remedy=f"Send {name} as {wanted}.",
                    )
        raise AssertionError(columns)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each wanted field stands in a stored row, -1 for nowhere, and what its value goes through.

    ``nulls`` say why a wanted value is None; ``moves`` says whether stored values are anything else than the wanted
    ones, in order; ``changed`` is the definition the row was written under, where that is not the wanted one.
    """

    places: Sequence[int]
    unpackers: Sequence[Callable[[object], object] | None]
    moves: bool
    missing: Sequence[str]
    nulls: Sequence[Status]
    changed: str = ""

    def values(self, stored: Sequence[Any]) -> list[Any]:
        """The wanted values of a stored row."""
        found = [None if place < 0 else stored[place] for place in self.places]
        return [
            value if unpack is None or value is None else unpack(value)
            for value, unpack in zip(found, self.unpackers, strict=True)
        ]


def _plan(spec: ViewSpec, layout: Layout) -> Plan:
    stored = {name: (place, kind) for place, (name, kind) in enumerate(zip(layout.names, layout.types, strict=True))}
    places: list[int] = []
    unpackers: list[Callable[[object], object] | None] = []
    for name, wanted in zip(spec.fields, spec.types or ("",) * len(spec.fields), strict=True):
        place, kind = stored.get(name, (-1, wanted))
        try:
            unpack = unpacker(kind, wanted)
        except LookupError:
            place, unpack = -1, None
        places.append(place)
        unpackers.append(unpack)
    moves = places != list(range(len(layout.names))) or any(unpackers)
    missing = [name for name, place in zip(spec.fields, places, strict=True) if place < 0]
    nulls = [Status.NOT_FOUND if place < 0 else Status.NULL_VALUE for place in places]
    changed = layout.definition if differs(spec.definition, layout.definition) else ""
    return Plan(places, unpackers, moves, missing, nulls, changed)
