"""Online features: the newest known row of every entity, looked up by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from time import time
from typing import TYPE_CHECKING

import msgspec

from noria.clock import to_millis
from noria.errors import InvalidInput, NoriaError
from noria.features.definition_watch import DefinitionWatch
from noria.features.definitions import FeatureView
from noria.features.entity_keys import KeyPart, other_keys, pack_key, pack_parts, view_prefix
from noria.features.packing import Layout, exact_key, pack_rows
from noria.features.readers import Found, Reader, ViewSpec
from noria.features.sources import CREATED, EVENT
from noria.features.tails import Event, TailSpec, by_entity, rebuilt, update
from noria.store.keyvalue import KeyValueStore
from noria.store.stamps import SIGN, STAMP_BYTES, pack_stamp, unpack_stamp

if TYPE_CHECKING:
    import polars as pl


class _Together(msgspec.Struct, frozen=True):
    """Views that are looked up at once.

    ``keyed`` has a reader for each kind of key, since most views have the same; ``places`` has for each view what its
    keys begin with, and which kind they are of.
    """

    readers: Sequence[Reader]
    keyed: Sequence[Reader]
    places: Sequence[tuple[bytes, int]]
    join_keys: Sequence[str]

    @classmethod
    def of(cls, readers: Sequence[Reader]) -> _Together:
        keyed = {(one.spec.join_keys, one.key_types): one for one in reversed(readers)}
        kinds = {kind: number for number, kind in enumerate(keyed)}
        places = [(one.prefix, kinds[one.spec.join_keys, one.key_types]) for one in readers]
        return cls(
            readers, list(keyed.values()), places, list(dict.fromkeys(k for one in readers for k in one.spec.join_keys))
        )


class OnlineFeatures:
    """Writes and looks up the newest known row of each entity. Threads may share a handle when they may its store.

    ``watch`` is told of rows that are of another definition of their view than a spec was made of.
    """

    def __init__(self, store: KeyValueStore, watch: DefinitionWatch | None = None) -> None:
        self._store, self._watch = store, watch
        self._readers: dict[ViewSpec, Reader] = {}
        self._together: dict[tuple[ViewSpec, ...], _Together] = {}

    def materialize(self, view: FeatureView, rows: pl.DataFrame) -> int:
        """Make ``rows`` (as ``FeatureView.load`` gives them, already visible) current; returns how many were written.

        A row older than the one stored for its entity is left out, so late rows never undo newer ones.
        """
        return put_rows(self._store, view, rows)

    def vector(self, views: Sequence[ViewSpec], entities: Mapping[str, KeyPart], at: int) -> list[float | None]:
        """The fields of all ``views`` for one entity at ``at`` (UTC milliseconds); null when older than the TTL.

        Raises InvalidInput when a join key is not given or of the wrong kind, and, where a view says that missing is
        an error, NotFound for an entity without a row and InvalidData for a row that lacks a field. Raises Unavailable
        for a row that the watch refuses.
        """
        (found,) = self.vectors(views, [(entities, at)])
        if isinstance(found, NoriaError):
            raise found
        return found

    def vectors(
        self, views: Sequence[ViewSpec], asked: Sequence[tuple[Mapping[str, KeyPart], int]]
    ) -> list[list[float | None] | NoriaError]:
        """The same for many entities, each at its own time, by one look-up; an error stands in place of its vector."""
        together = self._asked_together(tuple(views))
        readers, keyed, places = together.readers, together.keyed, together.places
        found: list[list[float | None] | NoriaError] = []
        parts: list[Sequence[Sequence[object]]] = []
        keys: list[bytes] = []
        for entities, _ in asked:
            try:
                own = [reader.parts_of(entities) for reader in keyed]
                packed = [pack_key(b"", part) for part in own]
            except NoriaError as error:
                found.append(error)
                continue
            keys += [prefix + packed[kind] for prefix, kind in places]
            parts.append(own)
            found.append([])
        rows = self._store.get_many(keys)
        if None in rows:
            wanted = list(zip(readers, places, strict=True))
            self._guess(rows, [(reader, own[kind]) for own in parts for reader, (_, kind) in wanted])
        width, start = len(readers), 0
        for place, (entities, at) in enumerate(asked):
            if not isinstance(found[place], NoriaError):
                found[place] = _vector(readers, rows[start : start + width], at * 1000 + SIGN, entities)
                start += width
        return found

    def lookup(self, views: tuple[ViewSpec, ...], entities: Mapping[str, Sequence[KeyPart]], at: int) -> list[Found]:
        """The features of all ``views`` at ``at`` (UTC milliseconds) for entities given as columns by join key.

        A value that is null, not there, or older than the TTL is None, and its status says which. Raises InvalidInput
        for a join key that is not given or of the wrong kind, and for columns of different lengths.
        """
        together = self._asked_together(views)
        count = _count(views, together.join_keys, entities)
        parts = [reader.parts(entities, count) for reader in together.keyed]
        packed = list(map(pack_parts, parts))
        rows = self._store.get_many([prefix + key for prefix, kind in together.places for key in packed[kind]])
        if None in rows:
            asked = zip(together.readers, together.places, strict=True)
            self._guess(rows, [(reader, part) for reader, (_, kind) in asked for part in parts[kind]])
        now = at * 1000 + SIGN
        return [reader.found(rows[n * count : (n + 1) * count], now) for n, reader in enumerate(together.readers)]

    def drop(self, view: str) -> int:
        """Delete all rows of the view; returns how many there were."""
        return self._store.delete(view_prefix(view))

    def _reader(self, view: ViewSpec) -> Reader:
        reader = self._readers[view] = Reader(view, self._store, self._watch)
        return reader

    def _asked_together(self, views: tuple[ViewSpec, ...]) -> _Together:
        together = self._together.get(views)
        if together is None:
            readers = [self._readers.get(view) or self._reader(view) for view in views]
            together = self._together[views] = _Together.of(readers)
        return together

    def _guess(self, rows: list[bytes | None], wanted: Sequence[tuple[Reader, Sequence[object]]]) -> None:
        """Find what is missing under the other kind of its key, for views where nobody declared that kind."""
        others = {
            place: other_keys(reader.prefix, parts)
            for place, (row, (reader, parts)) in enumerate(zip(rows, wanted, strict=True))
            if row is None and reader.guesses
        }
        if not others:
            return
        tried = list(chain.from_iterable(others.values()))
        found = dict(zip(tried, self._store.get_many(tried), strict=True))
        for place, keys in others.items():
            rows[place] = next((found[key] for key in keys if found[key] is not None), None)


def _vector(
    readers: Sequence[Reader], rows: Sequence[bytes | None], now: int, entities: Mapping[str, KeyPart]
) -> list[float | None] | NoriaError:
    vector: list[float | None] = []
    try:
        for reader, row in zip(readers, rows, strict=True):
            vector += reader.required(row, now, entities)
    except NoriaError as error:
        return error
    return vector


def _count(views: Sequence[ViewSpec], keys: Sequence[str], entities: Mapping[str, Sequence[KeyPart]]) -> int:
    """How many entities are asked for; a view without join keys has one."""
    try:
        lengths = set(map(len, map(entities.__getitem__, keys)))
    except KeyError as missing:
        (key,) = missing.args
        view = next(view for view in views if key in view.join_keys)
        raise InvalidInput(
            f"entity key {key!r} is missing; feature view {view.name!r} is looked up by it",
            remedy=f"Send {', '.join(view.join_keys)} with every entity.",
        ) from None
    if len(lengths) > 1:
        raise InvalidInput(
            f"columns of entity keys have different lengths: {', '.join(map(str, sorted(lengths)))}",
            remedy="Send one value an entity in every column.",
        )
    return lengths.pop() if lengths else 1


def put_rows(store: KeyValueStore, view: FeatureView, rows: pl.DataFrame) -> int:
    """Write ``rows`` as one batch, with the layout they are packed in; returns how many were written.

    Of a view with aggregations they are events, and are added to those kept of their entities.
    """
    return put_all(store, [(view, rows)])


def put_all(store: KeyValueStore, batches: Sequence[tuple[FeatureView, pl.DataFrame]]) -> int:
    """The same for several views. What a failure leaves behind does no harm when all is written again.

    Events, which would count twice, are written last and all at once.
    """
    rows = [(view, frame) for view, frame in batches if not view.aggregations]
    layouts = dict(Layout.of(view).entry() for view, _ in rows)
    entries = [*layouts.items(), *(entry for view, frame in rows for entry in pack_rows(view, frame))]
    written = store.put_newer(entries) - len(layouts) if entries else 0
    return written + add_events(store, [(view, frame) for view, frame in batches if view.aggregations])


def add_events(store: KeyValueStore, batches: Sequence[tuple[FeatureView, pl.DataFrame]]) -> int:
    """Add events to those kept of their entities, as one batch; returns how many."""
    arrived = round(time())
    changes: dict[bytes, Callable[[bytes | None], bytes]] = {}
    count = 0
    for view, rows in batches:
        if rows.is_empty():
            continue
        add = partial(update, spec=TailSpec.of(view), now=_newest(rows), arrived=arrived)
        for key, events in _by_key(view, rows):
            changes[key] = partial(_tail_with, events, add)
            count += len(events)
    _change(store, changes)
    return count


def replace_events(
    store: KeyValueStore, view: FeatureView, rows: pl.DataFrame, *, until: datetime, read_at: float
) -> int:
    """Keep events of entities in place of all up to ``until``, as one batch; returns how many.

    What arrived since ``read_at``, when the events began to be read (seconds since 1970), may not be among them.
    """
    if rows.is_empty():
        return 0
    replace = partial(rebuilt, spec=TailSpec.of(view), until=until, now=_newest(rows), read_at=read_at)
    entities = list(_by_key(view, rows))
    _change(store, {key: partial(_tail_with, events, replace) for key, events in entities})
    return sum(len(events) for _, events in entities)


def _by_key(view: FeatureView, rows: pl.DataFrame) -> Iterator[tuple[bytes, list[Event]]]:
    prefix = view_prefix(view.name)
    for parts, events in by_entity(view, with_typed_keys(view, rows)):
        yield pack_key(prefix, parts), events


def _tail_with(events: list[Event], change: Callable[[bytes | None, list[Event]], bytes], state: bytes | None) -> bytes:
    """A stored tail changed by ``events``, under the stamp of the newest event it ever held."""
    tail = change(None if state is None else state[STAMP_BYTES:], events)
    happened = max(event.happened for event in events) // 1000
    stamp = happened if state is None else max(happened, unpack_stamp(state)[0])
    return pack_stamp(stamp, stamp) + tail


def _change(store: KeyValueStore, changes: Mapping[bytes, Callable[[bytes | None], bytes]]) -> None:
    if changes:
        store.update(
            list(changes), lambda states: [one(state) for one, state in zip(changes.values(), states, strict=True)]
        )


def _newest(rows: pl.DataFrame) -> datetime:
    """When the last of the events happened or was known: no clock is asked, so histories can be replayed."""
    import polars as pl

    newest = rows.select(pl.max_horizontal(pl.col(EVENT, CREATED).max())).item()
    assert isinstance(newest, datetime)
    return newest


def with_typed_keys(view: FeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with join keys in the types they are looked up by. Raises InvalidData that names a row."""
    return rows.with_columns(exact_key(rows[name], kind) for name, kind in view.key_types().items())


def visible_between(rows: pl.DataFrame, since: datetime | None, until: datetime) -> pl.DataFrame:
    """The rows that became known in (``since``, ``until``]."""
    known = visible_at() <= to_millis(until)
    return rows.filter(known if since is None else known & (visible_at() > to_millis(since)))


def visible_at() -> pl.Expr:
    """When a feature row became known, in UTC milliseconds: once it had both happened and been recorded."""
    import polars as pl

    return pl.max_horizontal("event_timestamp", "created_timestamp").dt.epoch("ms")
