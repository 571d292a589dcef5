"""On-demand features: computed from stored ones and from the request, the same way for training and for serving."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from noria.errors import InvalidConfig
from noria.features.definitions import FeatureView, Projection, Selectable, Selection, chosen, refuse_keywords
from noria.features.referred_code import referred_code
from noria.features.sources import Field, RequestSource
from noria.features.transformation import Input, Transformation
from noria.features.transformation_modes import Mode
from noria.features.types import FeatureType
from noria.features.user_code import source_text

if TYPE_CHECKING:
    import polars as pl

_OUTDATED: Mapping[str, str] = {
    "features": "schema=[Field(name=..., dtype=Int64), ...]",
    "inputs": "sources=[...]",
    "input_schema": "sources=[RequestSource(name=..., schema=[...])]",
    "aggregations": "FeatureView(..., aggregations=[...]) and name it in sources",
}


@dataclass(frozen=True, slots=True)
class OnDemandProjection(Selection):
    """Some features of an on-demand view, maybe under another name."""

    view: OnDemandFeatureView
    features: Sequence[str]
    name: str = ""

    @property
    def used_name(self) -> str:
        return self.name or self.view.name

    def with_name(self, name: str) -> OnDemandProjection:
        """The same under another name."""
        return replace(self, name=name)

    def __getitem__(self, names: Sequence[str]) -> OnDemandProjection:
        return replace(self, features=chosen(self.view.name, self.view.fields, names))

    def document(self) -> Sequence[object]:
        return [self.view.name, list(self.features), self.name]


@dataclass(frozen=True, init=False, eq=False)
class OnDemandFeatureView(Selectable):
    """Features that the function ``udf`` computes from ``sources``: views, some of their features, requests' values.

    ``schema`` lists them. How the function is called depends on ``mode`` and ``singleton``; see ``Transformation``.
    Two definitions are the same when the text of their functions is (``udf_string``), and that of all the project's own
    code they refer to (``referred``). Usually made by the decorator ``on_demand_feature_view``.
    """

    name: str
    sources: Sequence[Projection | RequestSource]
    schema: Sequence[Field]
    udf: Callable[[Any], Any]
    udf_string: str
    mode: Mode
    singleton: bool
    description: str
    tags: Mapping[str, str]
    owner: str

    def __init__(
        self,
        *,
        name: str,
        sources: Sequence[FeatureView | Projection | RequestSource],
        schema: Sequence[Field],
        udf: Callable[[Any], Any],
        udf_string: str = "",
        referred: Mapping[str, str] | None = None,
        mode: Mode = "pandas",
        singleton: bool = False,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
        **unknown: object,
    ) -> None:
        refuse_keywords("OnDemandFeatureView", unknown, _OUTDATED)
        if not callable(udf):
            raise InvalidConfig(f"the udf of on-demand feature view {name!r} is {udf!r}", remedy="Give a function.")
        _check_mode(name, mode, singleton=singleton)
        projected = tuple(one.selection() if isinstance(one, FeatureView) else one for one in sources)
        _check_sources(name, projected)
        _check_schema(name, schema)
        self.__dict__.update(name=name, sources=projected, schema=tuple(schema), mode=mode, singleton=singleton)
        self.__dict__.update(udf=udf, udf_string=udf_string or source_text(udf))
        self.__dict__.update(description=description, tags=dict(tags or {}), owner=owner)
        if referred is not None:
            self.__dict__["referred"] = dict(referred)

    @property
    def features(self) -> tuple[Field, ...]:
        """The fields of the schema."""
        return tuple(self.schema)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(one.name for one in self.schema)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The stored features it takes."""
        return tuple(one for one in self.sources if isinstance(one, Projection))

    @property
    def requested(self) -> tuple[Field, ...]:
        """The values that must come with each row of a request."""
        return tuple(field for one in self.sources if isinstance(one, RequestSource) for field in one.schema)

    @cached_property
    def referred(self) -> Mapping[str, str]:
        """The project's code and constants that the function refers to; looked at late, when all of it is defined."""
        return referred_code(self.udf)

    @cached_property
    def transformation(self) -> Transformation:
        """What computes the features; all that a process needs that only serves them."""
        inputs = tuple(one for source in self.sources for one in _inputs(source))
        return Transformation(self.name, inputs, self.features, self.mode, self.singleton, self.udf)

    def transform_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """See ``Transformation.transform_frame``."""
        return self.transformation.transform_frame(frame)

    def transform_rows(self, columns: Mapping[str, Sequence[object]]) -> dict[str, list[object]]:
        """See ``Transformation.transform_rows``."""
        return self.transformation.transform_rows(columns)

    def selection(self) -> OnDemandProjection:
        return OnDemandProjection(self, self.fields)

    def __getitem__(self, names: Sequence[str]) -> OnDemandProjection:
        return self.selection()[names]

    def with_name(self, name: str) -> OnDemandProjection:
        """All features under another name."""
        return OnDemandProjection(self, self.fields, name)

    def document(self) -> Mapping[str, object]:
        """What says all of it, as JSON."""
        return {
            "name": self.name,
            "sources": [one.document() for one in self.sources],
            "schema": [[one.name, str(one.dtype)] for one in self.schema],
            "mode": self.mode,
            "singleton": self.singleton,
            "udf": self.udf_string,
            **({"referred": dict(self.referred)} if self.referred else {}),
        }


def on_demand_feature_view(
    *,
    sources: Sequence[FeatureView | Projection | RequestSource],
    schema: Sequence[Field],
    mode: Mode = "pandas",
    singleton: bool = False,
    name: str = "",
    description: str = "",
    tags: Mapping[str, str] | None = None,
    owner: str = "",
    **unknown: object,
) -> Callable[[Callable[[Any], Any]], OnDemandFeatureView]:
    """Make a function an OnDemandFeatureView, named as the function when no name is given."""
    refuse_keywords("on_demand_feature_view", unknown, _OUTDATED)

    def define(function: Callable[[Any], Any]) -> OnDemandFeatureView:
        return OnDemandFeatureView(
            name=name or function.__name__,
            sources=sources,
            schema=schema,
            udf=function,
            mode=mode,
            singleton=singleton,
            description=description,
            tags=tags,
            owner=owner,
        )

    return define


def _inputs(source: Projection | RequestSource) -> list[Input]:
    if isinstance(source, RequestSource):
        return [Input(source.name, one.name, one.dtype, requested=True) for one in source.schema]
    types = {one.name: one.dtype for one in source.view.features}
    return [Input(source.used_name, name, types[name], requested=False) for name in source.features]


def _check_mode(view: str, mode: str, *, singleton: bool) -> None:
    if mode not in get_args(Mode):
        raise InvalidConfig(
            f"on-demand feature view {view!r} has the mode {mode!r}", remedy=f"Modes are: {', '.join(get_args(Mode))}."
        )
    if singleton and mode != "python":
        raise InvalidConfig(
            f"on-demand feature view {view!r} takes single rows in mode {mode!r}",
            remedy="Write mode='python' with singleton=True.",
        )


def _check_sources(view: str, sources: Sequence[object]) -> None:
    known = [one for one in sources if isinstance(one, Projection | RequestSource)]
    if len(known) < len(sources) or not sources:
        odd = [one for one in sources if one not in known]
        raise InvalidConfig(
            f"on-demand feature view {view!r} has {f'the source {odd[0]!r}' if odd else 'no sources'}",
            remedy="List feature views, some of their features (view[[...]]), and RequestSource(...)s.",
        )
    names = Counter(one.used_name if isinstance(one, Projection) else one.name for one in known)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InvalidConfig(
            f"on-demand feature view {view!r} has two sources named {twice[0]!r}", remedy="Use with_name(...) for one."
        )
    _check_requests(view, [one for one in known if isinstance(one, RequestSource)])


def _check_requests(view: str, sources: Sequence[RequestSource]) -> None:
    types: dict[str, FeatureType] = {}
    for field in (field for source in sources for field in source.schema):
        if types.setdefault(field.name, field.dtype) != field.dtype:
            raise InvalidConfig(
                f"on-demand feature view {view!r} takes {field.name!r} as {types[field.name]} and as {field.dtype}",
                remedy="One request brings one value of that name; give it one type.",
            )


def _check_schema(view: str, schema: Sequence[Field]) -> None:
    names = [one.name for one in schema]
    if not names or len(set(names)) < len(names):
        raise InvalidConfig(
            f"on-demand feature view {view!r} needs distinct features",
            remedy="List each once: schema=[Field(name=..., dtype=Float64), ...].",
        )
