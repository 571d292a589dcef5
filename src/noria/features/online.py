"""Online features: the newest known value of every entity, by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from noria.clock import to_millis
from noria.errors import InvalidInput, NotFound
from noria.features.definitions import FeatureView, OnMissing
from noria.store.keyvalue import KeyValueStore

if TYPE_CHECKING:
    import polars as pl

_SEPARATOR = "\x1f"


class ViewSpec(msgspec.Struct, frozen=True):
    """What a gateway must know of a feature view: no source, no frames."""

    name: str
    join_keys: tuple[str, ...]
    fields: tuple[str, ...]
    ttl_millis: int | None
    on_missing: OnMissing

    @classmethod
    def of(cls, view: FeatureView) -> ViewSpec:
        """The spec that travels with a model."""
        ttl = None if view.ttl is None else round(view.ttl.total_seconds() * 1000)
        return cls(view.name, tuple(view.entity.join_keys), tuple(view.fields), ttl, view.on_missing)


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    event_timestamp: int
    created_timestamp: int
    values: list[float | None]

    @property
    def stamp(self) -> tuple[int, int]:
        """What makes a row newer than another."""
        return self.event_timestamp, self.created_timestamp


class OnlineFeatures:
    """Writes and looks up the newest known row of each entity. Share a handle within one thread only."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Entry).decode

    def materialize(self, view: FeatureView, rows: pl.DataFrame) -> int:
        """Make ``rows`` (as ``FeatureView.load`` gives them, already visible) current; returns how many were newer.

        A row older than the one stored for its entity is left out, so late rows never undo newer ones.
        """
        newest: dict[str, _Entry] = {}
        for key, entry in _entries(view, rows):
            if key not in newest or newest[key].stamp <= entry.stamp:
                newest[key] = entry
        stored = self._store.get_many(list(newest))
        fresh = [
            (key, self._encode(entry))
            for key, entry in newest.items()
            if key not in stored or self._decode(stored[key]).stamp < entry.stamp
        ]
        self._store.put_many(fresh)
        return len(fresh)

    def lookup(self, view: ViewSpec, entities: Mapping[str, str | int], at: int) -> Sequence[float | None]:
        """The fields of ``view`` for the entity at ``at`` (UTC milliseconds), null when older than the TTL.

        Raises InvalidInput when a join key is not given, NotFound for an entity without a row when the view says so.
        """
        try:
            key = [entities[name] for name in view.join_keys]
        except KeyError as missing:
            raise InvalidInput(
                f"entity key {missing.args[0]!r} is missing; feature view {view.name!r} is looked up by it",
                remedy=f'Send "entities" with {", ".join(view.join_keys)}.',
            ) from None
        content = self._store.get(_key(view.name, key))
        if content is None:
            if view.on_missing == "null":
                return [None] * len(view.fields)
            raise NotFound(
                f"no features of view {view.name!r} for {dict(zip(view.join_keys, key, strict=True))}",
                remedy="Check the key, or materialize the view with this entity in its source.",
            )
        entry = self._decode(content)
        if view.ttl_millis is not None and at - entry.event_timestamp > view.ttl_millis:
            return [None] * len(view.fields)
        return entry.values


def _entries(view: FeatureView, rows: pl.DataFrame) -> Iterator[tuple[str, _Entry]]:
    """Each row's key and entry; plain loops, because most calls bring fewer rows than a query plan is worth."""
    keys, fields = list(view.entity.join_keys), list(view.fields)
    events, created = (rows[name].dt.epoch("ms").to_list() for name in ("event_timestamp", "created_timestamp"))
    names = zip(*(rows[name].to_list() for name in keys), strict=True)
    values = zip(*(rows[name].to_list() for name in fields), strict=True)
    for name, event, creation, row in zip(names, events, created, values, strict=True):
        yield _key(view.name, name), _Entry(event, creation, list(row))


def visible_between(rows: pl.DataFrame, since: datetime | None, until: datetime) -> pl.DataFrame:
    """The rows that became known in (``since``, ``until``]."""
    known = visible_at() <= to_millis(until)
    return rows.filter(known if since is None else known & (visible_at() > to_millis(since)))


def visible_at() -> pl.Expr:
    """When a feature row became known, in UTC milliseconds: once it had both happened and been recorded."""
    import polars as pl

    return pl.max_horizontal("event_timestamp", "created_timestamp").dt.epoch("ms")


def _key(view: str, values: Sequence[object]) -> str:
    return _SEPARATOR.join((view, *(str(value) for value in values)))
