"""Definitions made whole: what they stand on is added, and what was left out is read off their sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from noria.errors import InvalidConfig, NoriaError
from noria.features.catalog import Definition, Kind, kind_of
from noria.features.definitions import FeatureView
from noria.features.on_demand import OnDemandFeatureView
from noria.features.sources import Field, PushSource, RequestSource, Source, inferred_fields
from noria.features.types import type_of


def completed(definitions: Iterable[Definition], folder: Path) -> list[Definition]:
    """The definitions with the entities and sources they stand on, once each. Raises InvalidData."""
    found: dict[tuple[Kind, str], Definition] = {}
    for one in definitions:
        needed: list[Definition] = [one]
        if isinstance(one, FeatureView):
            one = completed_view(one, folder)
            needed = [*one.entities, *_sources(one.source), one]
        elif isinstance(one, OnDemandFeatureView):
            needed = [*(source for source in one.sources if isinstance(source, RequestSource)), one]
        found |= {(kind_of(each), each.name): each for each in needed}
    return list(found.values())


def completed_view(view: FeatureView, folder: Path) -> FeatureView:
    """The view with the schema and the types of its join keys, read off its source where nobody declared them.

    Without a type, 1 and "1" would be two entities. A source that cannot be read now leaves keys undeclared. Raises
    InvalidData when the whole schema would have to be read off such a source.
    """
    if not view.features:
        view = replace(view, schema=inferred_fields(view.source, folder, view.join_keys))
    missing = [key for key in view.join_keys if key not in view.key_types()]
    return replace(view, schema=[*_keys(view.source, folder, missing), *view.schema]) if missing else view


def _keys(source: Source, folder: Path, names: list[str]) -> list[Field]:
    try:
        columns = source.columns(folder)
    except NoriaError:  # whoever reads its rows is told
        return []
    fields = []
    for name in names:
        try:
            fields.append(Field(name=name, dtype=type_of(columns[name])))
        except (KeyError, InvalidConfig):  # nor is a column of nulls a type
            continue
    return fields


def _sources(source: Source) -> list[Source]:
    if isinstance(source, PushSource) and source.batch_source is not None:
        return [source, source.batch_source]
    return [source]
