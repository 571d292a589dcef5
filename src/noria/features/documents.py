"""Definitions from the documents they were kept as."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from noria.errors import InvalidConfig
from noria.features.aggregations import Aggregation
from noria.features.definitions import Entity, FeatureService, FeatureView, Projection
from noria.features.file_source import FileSource
from noria.features.function_code import load, load_source
from noria.features.on_demand import OnDemandFeatureView
from noria.features.sources import Field, FrameSource, PushSource, RequestSource, Source
from noria.features.sql_source import SqlSource
from noria.features.types import ValueType, parse_type

Document = Mapping[str, Any]
_SOURCES: Mapping[str, type[Source]] = {"FileSource": FileSource, "SqlSource": SqlSource}


def read_entity(document: Document) -> Entity:
    """The entity of that document."""
    return Entity(document["name"], document["join_keys"], ValueType[document["value_type"]])


def read_source(document: Document, code: str = "") -> Source | RequestSource:
    """The source of that document; a function of a project's code is taken out of ``code``, where that was kept."""
    fields = {name: value for name, value in document.items() if name != "kind"}
    if document["kind"] == "RequestSource":
        return RequestSource(name=document["name"], schema=_fields(document["schema"]))
    if document["kind"] == "FrameSource":
        return FrameSource(**{"referred": {}, **fields}, function=_Kept(document["name"], code))
    if document["kind"] == "PushSource":
        batch = document["batch_source"]
        return PushSource(**{**fields, "batch_source": None if batch is None else read_source(batch, code)})
    return _SOURCES[document["kind"]](**fields)


def read_view(document: Document, code: str = "") -> FeatureView:
    """The feature view of that document; ``code`` as for its source."""
    source = read_source(document["source"], code)
    assert isinstance(source, Source)
    return FeatureView(
        name=document["name"],
        entities=[read_entity(entity) for entity in document["entities"]],
        schema=_fields(document["schema"]),
        aggregations=[_aggregation(*one) for one in document.get("aggregations", ())],
        source=source,
        ttl=_ttl(document),
        online=document["online"],
        on_missing=document["on_missing"],
    )


def read_on_demand(document: Document, code: str, views: Mapping[str, FeatureView]) -> OnDemandFeatureView:
    """The on-demand view of that document; its function is taken out of ``code`` when it is first called."""
    sources = [
        _projection(one, document["name"], views)
        if isinstance(one, list)
        else RequestSource(name=one["name"], schema=_fields(one["schema"]))
        for one in document["sources"]
    ]
    return OnDemandFeatureView(
        name=document["name"],
        sources=sources,
        schema=_fields(document["schema"]),
        udf=_Computing(code),
        udf_string=document["udf"],
        referred=document.get("referred", {}),
        mode=document["mode"],
        singleton=document["singleton"],
    )


def read_service(
    document: Document, views: Mapping[str, FeatureView], on_demand: Mapping[str, OnDemandFeatureView]
) -> FeatureService:
    """The feature service of that document, over the views of now. Raises InvalidConfig when one is gone."""
    selected = [
        on_demand[one[0]][one[1]].with_name(one[2])
        if len(one) == 3 and one[0] in on_demand
        else _projection(one, document["name"], views)
        for one in document["features"]
    ]
    return FeatureService(name=document["name"], features=selected)


def _projection(document: list[Any], user: str, views: Mapping[str, FeatureView]) -> Projection:
    view, features, name, *join_key_map = document
    if view not in views:
        raise InvalidConfig(
            f"{user!r} takes features of view {view!r}, which is gone",
            remedy="Apply the view again, or apply what takes its features without it.",
        )
    return Projection(views[view], tuple(features), name, join_key_map[0] if join_key_map else {})


def _ttl(document: Document) -> timedelta | None:
    if document.get("ttl_seconds") is not None:  # as it was kept at first
        return timedelta(seconds=document["ttl_seconds"])
    micros = document.get("ttl_microseconds")
    return None if micros is None else timedelta(microseconds=micros)


def _aggregation(column: str, function: str, window_nanoseconds: int, name: str) -> Aggregation:
    return Aggregation(column, function, timedelta(microseconds=window_nanoseconds // 1000), name=name)


def _fields(pairs: list[list[str]]) -> list[Field]:
    return [Field(name=name, dtype=parse_type(dtype)) for name, dtype in pairs]


class _Computing:
    """The function of an on-demand view."""

    def __init__(self, code: str) -> None:
        self._code = code

    @cached_property
    def __wrapped__(self) -> Callable[[Any], Any]:
        return load(b64decode(self._code)).function

    def __call__(self, given: Any) -> Any:
        return self.__wrapped__(given)


class _Kept:
    """The function that gives a source's rows."""

    def __init__(self, name: str, code: str) -> None:
        self._name, self._code = name, code

    @cached_property
    def __wrapped__(self) -> Callable[[], Any]:
        if self._code and (function := load_source(b64decode(self._code))) is not None:
            return function
        raise InvalidConfig(
            f"the rows come from {self._name!r}, a function of a project's code that is not here",
            remedy="Open the feature store in the folder with that code, or apply the definitions again from it.",
        )

    def __call__(self) -> Any:
        return self.__wrapped__()


def is_elsewhere(source: Source) -> bool:
    """Whether the rows come from a function that was not kept."""
    if isinstance(source, PushSource) and source.batch_source is not None:
        return is_elsewhere(source.batch_source)
    if not isinstance(source, FrameSource) or not isinstance(source.function, _Kept):
        return False
    try:
        _ = source.function.__wrapped__
    except InvalidConfig:
        return True
    return False
