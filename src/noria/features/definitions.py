"""What a feature is: entities, views, and services that name what a model takes. Spelled as in Feast."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from noria.errors import InvalidConfig
from noria.features.aggregations import Aggregation
from noria.features.parquet_files import pinned
from noria.features.sources import CREATED, EVENT, Field, FrameSource, Source
from noria.features.types import FeatureType, ValueType

if TYPE_CHECKING:
    import polars as pl

OnMissing = Literal["error", "null"]

_RESERVED = (EVENT, CREATED)
_OUTDATED: Mapping[str, str] = {
    "features": "schema=[Field(name=..., dtype=Int64), ...]",
    "batch_source": "source=",
    "input": "source=",
    "stream_source": "source=PushSource(name=..., batch_source=...)",
    "join_key": "join_keys=[...]",
}


_HOLDS: Mapping[str, Sequence[object]] = {
    "enable_validation": (True, False),
    "version": ("latest",),
    "enabled": (True,),
    "offline": (False,),
}
"""Keywords of Feast's that say, with these values, what holds here anyway."""


def refuse_keywords(what: str, given: Mapping[str, object], outdated: Mapping[str, str] = _OUTDATED) -> None:
    """Raises InvalidConfig for keywords nobody takes; the current spelling is given for one that was."""
    for name, value in given.items():
        if value in _HOLDS.get(name, ()):
            continue
        now = f"; write {outdated[name]}" if name in outdated else ""
        raise InvalidConfig(f"{what} takes no {name!r}{now}", remedy="Leave it out; help() lists what is taken.")


@dataclass(frozen=True, slots=True)
class Project:
    """The name a Feast repo's files give their project: the same as in its feature_store.yaml."""

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True, init=False)
class Entity:
    """What features are about; ``join_keys`` are the columns that name one, its name when none are given."""

    name: str
    join_keys: Sequence[str]
    value_type: ValueType
    description: str
    tags: Mapping[str, str]
    owner: str

    def __init__(
        self,
        name: str,
        join_keys: Sequence[str] | None = None,
        value_type: ValueType = ValueType.UNKNOWN,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
        **unknown: object,
    ) -> None:
        refuse_keywords("Entity", unknown)
        if isinstance(join_keys, str):
            raise InvalidConfig(
                f"join_keys of entity {name!r} is a text", remedy=f"Write a list: join_keys=[{join_keys!r}]."
            )
        keys = tuple(join_keys or [name])
        _set(self, name=name, join_keys=keys, value_type=value_type or ValueType.UNKNOWN)
        _set(self, description=description, tags=dict(tags or {}), owner=owner)

    def document(self) -> Mapping[str, object]:
        """What says all of it, as JSON."""
        return {"name": self.name, "join_keys": list(self.join_keys), "value_type": self.value_type.name}


class Selection(ABC):
    """Some features of one view, as a feature service lists them: stored ones (``Projection``) or on-demand ones."""

    __slots__ = ()
    features: Sequence[str]

    @property
    @abstractmethod
    def used_name(self) -> str:
        """What the view is called here."""

    @abstractmethod
    def document(self) -> Sequence[object]:
        """What says all of it, as JSON."""


class Selectable(ABC):
    """A view of which a feature service may list all features."""

    @abstractmethod
    def selection(self) -> Selection:
        """All features of the view."""


@dataclass(frozen=True, slots=True)
class Projection(Selection):
    """Some features of one view, maybe under another name and looked up by other columns."""

    view: FeatureView
    features: Sequence[str]
    name: str = ""
    join_key_map: Mapping[str, str] = field(default_factory=dict)

    @property
    def used_name(self) -> str:
        """What the view is called here."""
        return self.name or self.view.name

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns it adds to a training frame: ``view__field``."""
        return tuple(f"{self.used_name}__{field}" for field in self.features)

    def with_name(self, name: str) -> Projection:
        """The same under another name, so that one view can be joined twice."""
        return replace(self, name=name)

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> Projection:
        """The same, looked up by other columns: join key → column of the entity frame."""
        return replace(self, join_key_map=dict(join_key_map))

    def __getitem__(self, names: Sequence[str]) -> Projection:
        return replace(self, features=chosen(self.view.name, self.view.fields, names))

    def document(self) -> Sequence[object]:
        return [self.view.name, list(self.features), self.name, dict(self.join_key_map)]


@dataclass(frozen=True, init=False, eq=False)
class FeatureView(Selectable):
    """Features of entities over time, from one source.

    ``source`` is a Source, or a function that gives a Polars frame; columns are as ``Source`` says. ``schema`` lists
    the features; empty, they are the source's columns. A value older than ``ttl`` counts as missing (None or zero: no
    value is too old). ``on_missing`` says what a prediction for an entity without a row gets: an error, or nulls that
    the model must be able to take. ``online=False`` keeps a view out of materialization.

    With ``aggregations`` the source's rows are events, ``schema`` lists what they hold, and the features are the
    aggregations: values over windows of time, computed at the very time a row or a request asks for.
    """

    name: str
    entities: Sequence[Entity]
    source: Source
    schema: Sequence[Field]
    aggregations: Sequence[Aggregation]
    ttl: timedelta | None
    online: bool
    on_missing: OnMissing
    description: str
    tags: Mapping[str, str]
    owner: str

    def __init__(
        self,
        *,
        name: str,
        source: Source | Callable[[], Any] | None = None,
        entities: Sequence[Entity] = (),
        schema: Sequence[Field] = (),
        aggregations: Sequence[Aggregation] = (),
        ttl: timedelta | None = None,
        online: bool = True,
        on_missing: OnMissing = "error",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
        **unknown: object,
    ) -> None:
        refuse_keywords("FeatureView", unknown)
        _check_entities(name, entities)
        _check_aggregations(name, aggregations or ())
        if not isinstance(source, Source):
            if not callable(source):
                raise InvalidConfig(
                    f"the source of feature view {name!r} is {source!r}",
                    remedy="Give FileSource(path=...), another source, or a function that gives a Polars frame.",
                )
            source = FrameSource(function=source)
        _set(self, name=name, source=source, entities=tuple(entities), schema=tuple(schema or ()))
        _set(self, aggregations=tuple(aggregations or ()), ttl=ttl or None, online=online, on_missing=on_missing)
        _set(self, description=description, tags=dict(tags or {}), owner=owner)
        names = [one.name for one in self.features]
        if len(set(names)) != len(names) or set(names) & set(_RESERVED):
            raise InvalidConfig(
                f"feature view {name!r} needs distinct fields",
                remedy=f"List each once; none is {' or '.join(_RESERVED)}.",
            )
        _check_windows(self)

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The columns an entity of this view is named by, in the order of its entities."""
        return tuple(key for entity in self.entities for key in entity.join_keys)

    @property
    def features(self) -> tuple[Field, ...]:
        """The fields that are no join keys; with aggregations, those."""
        if not self.aggregations:
            return tuple(one for one in self.schema if one.name not in self.join_keys)
        types = {one.name: one.dtype for one in self.schema}
        return tuple(Field(name=one.name, dtype=one.dtype(self.name, types)) for one in self.aggregations)

    @property
    def columns(self) -> tuple[Field, ...]:
        """The fields read from the source: the features, or what the aggregations are made of."""
        if not self.aggregations:
            return self.features
        used = {one.column for one in self.aggregations}
        return tuple(one for one in self.schema if one.name in used)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(one.name for one in self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns the view adds to a training frame: ``view__field``."""
        return tuple(f"{self.name}__{field}" for field in self.fields)

    @cached_property
    def definition(self) -> str:
        """The hash of all it says. Looked at late, when all the code it refers to is defined."""
        return content_hash(self)

    def key_types(self) -> Mapping[str, FeatureType]:
        """Join key → its type, where the schema or the entity says one."""
        declared = {one.name: one.dtype for one in self.schema if one.name in self.join_keys}
        for entity in self.entities:
            if (known := entity.value_type.feature_type) is not None:
                declared = dict.fromkeys(entity.join_keys, known) | declared
        return declared

    def load(self, folder: Path = Path()) -> pl.DataFrame:
        """All rows of the source: join keys, both times in UTC, and its ``columns``. Raises InvalidData."""
        columns = [one for one in self.columns if one.name not in self.join_keys]
        with pinned(), self.source.telling(folder, self.name):
            return self.source.rows(folder, keys=self.join_keys, fields=columns).collect()

    def selection(self) -> Projection:
        return Projection(self, self.fields)

    def __getitem__(self, names: Sequence[str]) -> Projection:
        return Projection(self, chosen(self.name, self.fields, names))

    def with_name(self, name: str) -> Projection:
        """All features under another name, so that one view can be joined twice."""
        return Projection(self, self.fields, name)

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> Projection:
        """All features, looked up by other columns: join key → column of the entity frame."""
        return Projection(self, self.fields, "", dict(join_key_map))

    def document(self) -> Mapping[str, object]:
        """What says all of it, as JSON."""
        return {
            "name": self.name,
            "entities": [entity.document() for entity in self.entities],
            "schema": [[one.name, str(one.dtype)] for one in self.schema],
            "aggregations": [one.document() for one in self.aggregations],
            "source": self.source.document(),
            "ttl_microseconds": None if self.ttl is None else self.ttl // timedelta(microseconds=1),
            "online": self.online,
            "on_missing": self.on_missing,
        }


@dataclass(frozen=True, init=False, eq=False)
class FeatureService:
    """The features one model takes, by name, in the order it takes them."""

    name: str
    features: Sequence[Selection]
    description: str
    tags: Mapping[str, str]
    owner: str

    def __init__(
        self,
        *,
        name: str,
        features: Sequence[Selectable | Selection],
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
        logging_config: object = None,
        **unknown: object,
    ) -> None:
        refuse_keywords("FeatureService", unknown, {})
        del logging_config  # the gateway logs every vector it predicts from
        if bad := [one for one in features if not isinstance(one, Selectable | Selection)]:
            raise InvalidConfig(
                f"feature service {name!r} lists {bad[0]!r}", remedy='List views, or some features: view[["a", "b"]].'
            )
        selected = tuple(one if isinstance(one, Selection) else one.selection() for one in features)
        _set(self, name=name, features=selected, description=description, tags=dict(tags or {}), owner=owner)

    def document(self) -> Mapping[str, object]:
        """What says all of it, as JSON."""
        return {"name": self.name, "features": [list(one.document()) for one in self.features]}


class Documented(Protocol):
    """What says all of itself as JSON."""

    def document(self) -> Mapping[str, object]:
        """The document."""
        ...


def content_hash(definition: Documented) -> str:
    """SHA-256 of what a definition says; descriptions, tags and owners do not count."""
    canonical = json.dumps(definition.document(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def chosen(view: str, fields: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """``names`` as some features of a view. Raises InvalidConfig for one that is not in ``fields``."""
    names = (names,) if isinstance(names, str) else tuple(names)
    if unknown := [name for name in names if name not in fields]:
        raise InvalidConfig(
            f"feature view {view!r} has no feature {unknown[0]!r}", remedy=f"It has: {', '.join(fields)}."
        )
    return names


def _check_aggregations(view: str, aggregations: Sequence[Aggregation]) -> None:
    for one in aggregations:
        if not isinstance(one, Aggregation):
            raise InvalidConfig(
                f"aggregations of feature view {view!r} holds {one!r}",
                remedy='List aggregations: Aggregation(column=..., function="sum", time_window=timedelta(hours=1)).',
            )


def _check_windows(view: FeatureView) -> None:
    longest = max((one.time_window for one in view.aggregations), default=timedelta())
    if view.ttl is not None and view.ttl < longest:
        raise InvalidConfig(
            f"feature view {view.name!r} looks back {longest}, but its events are too old after {view.ttl} (ttl)",
            remedy="Leave ttl out: the windows say which events count.",
        )
    if taken := {one.name for one in view.aggregations} & set(view.join_keys):
        raise InvalidConfig(
            f"an aggregation of feature view {view.name!r} is named {min(taken)!r}, as a join key is",
            remedy="Give it another name=.",
        )


def _check_entities(view: str, entities: Sequence[Entity]) -> None:
    for one in entities:
        if not isinstance(one, Entity):
            raise InvalidConfig(
                f"entities of feature view {view!r} holds {one!r}",
                remedy="List Entity objects: entities=[Entity(name=...)].",
            )


def _set(definition: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(definition, name, value)
