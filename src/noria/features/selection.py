"""From what is asked for, by references or by a service, to what is looked up, computed, and answered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from noria.errors import InvalidInput, NotFound
from noria.features.catalog import Definitions
from noria.features.definitions import FeatureService, FeatureView, Projection, Selection
from noria.features.on_demand import OnDemandFeatureView, OnDemandProjection
from noria.features.readers import ViewSpec
from noria.features.types import FeatureType, Json

Wanted = Sequence[str] | FeatureService


@dataclass(frozen=True, slots=True)
class Answered:
    """One feature of an answer: its full name, ``view__field``, what it is called there, and its type."""

    full_name: str
    name: str
    dtype: FeatureType


@dataclass(frozen=True)
class Plan:
    """What an answer takes: stored features, each view once, then what is computed from them and the request."""

    lookups: Sequence[Projection]
    computed: Sequence[OnDemandProjection]
    answered: Sequence[Answered]

    @cached_property
    def specs(self) -> tuple[ViewSpec, ...]:
        """The lookups as an online store does them. Raises InvalidInput for what it cannot answer."""
        if offline := [one.view.name for one in self.lookups if not one.view.online]:
            raise InvalidInput(f"feature view {offline[0]!r} is not online", remedy="Define it with online=True.")
        self.check_names(())
        return tuple(map(ViewSpec.of, self.lookups))

    @cached_property
    def found(self) -> Sequence[str]:
        """The full names of all features that are looked up, then of those that are computed."""
        computed = [f"{one.used_name}__{field}" for one in self.computed for field in one.view.fields]
        return [name for one in self.lookups for name in one.feature_names] + computed

    @cached_property
    def named_places(self) -> Sequence[tuple[str, int, str, int]]:
        """The features of an answer: what each is called and where it stands among ``found``, and so its event times.

        Those stand a column a lookup, then a column a feature that is computed.
        """
        looked_up = [view for view, one in enumerate(self.lookups) for _ in one.features]
        times = [*looked_up, *range(len(self.lookups), len(self.lookups) + len(self.found) - len(looked_up))]
        places = {name: place for place, name in enumerate(self.found)}
        return [
            (one.name, place, f"{one.name}__ts", times[place])
            for one in self.answered
            for place in [places[one.full_name]]
        ]

    @cached_property
    def documents(self) -> Sequence[Answered]:
        """The features of an answer that are kept as JSON texts."""
        return [one for one in self.answered if one.dtype == Json or one.dtype.is_document]

    @cached_property
    def keys(self) -> Sequence[str]:
        """The join keys of an answer, as requests call them."""
        return list(dict.fromkeys(key for spec in self.specs for key in spec.join_keys))

    def check_names(self, taken: Collection[str]) -> None:
        """Raises InvalidInput when two features, or a feature and a column there already, would have one name."""
        seen = dict.fromkeys(taken, "a column of the entity frame")
        for one in self.answered:
            if one.name in seen:
                raise InvalidInput(
                    f"feature {one.full_name!r} would be called {one.name!r} like {seen[one.name]}",
                    remedy="Use full_feature_names=True, or another name for the view: view.with_name(...).",
                )
            seen[one.name] = f"feature {one.full_name!r}"


def plan(wanted: Wanted, definitions: Definitions, *, full_feature_names: bool) -> Plan:
    """What the features asked for take, in the order asked. Raises InvalidInput and NotFound."""
    selected = list(_selected(wanted, definitions))
    computed = [one for one in selected if isinstance(one, OnDemandProjection)]
    lookups: dict[str, Projection] = {}
    inputs = [one for each in computed for one in each.view.projections]
    for one in [*(one for one in selected if isinstance(one, Projection)), *inputs]:
        lookups[one.used_name] = _joined(lookups.get(one.used_name), _current(one, definitions))
    answered = []
    for each in selected:
        types = {field.name: field.dtype for field in each.view.features}
        for name in each.features:
            full = f"{each.used_name}__{name}"
            answered.append(Answered(full, full if full_feature_names else name, types[name]))
    return Plan(list(lookups.values()), computed, answered)


def find_view(name: str, definitions: Definitions) -> FeatureView:
    """The view of that name. Raises NotFound naming those there are."""
    if name not in definitions.views:
        raise _no_view(name, definitions)
    return definitions.views[name]


def _selected(wanted: Wanted, definitions: Definitions) -> Iterator[Projection | OnDemandProjection]:
    if isinstance(wanted, FeatureService):
        yield from (_as_applied(one, definitions) for one in wanted.features)
        return
    if isinstance(wanted, str) or not wanted:
        raise InvalidInput("no features are asked for", remedy='List references: features=["view:feature", ...].')
    chosen: dict[str, list[str]] = {}
    for reference in wanted:
        view, feature = _parsed(reference)
        if feature in chosen.setdefault(view, []):
            raise InvalidInput(f"feature {reference!r} is asked for twice", remedy="List each feature once.")
        chosen[view].append(feature)
    for view, features in chosen.items():
        known: FeatureView | OnDemandFeatureView | None = definitions.views.get(view) or definitions.on_demand.get(view)
        if known is None:
            raise _no_view(view, definitions)
        yield known[features]


def _as_applied(one: Selection, definitions: Definitions) -> Projection | OnDemandProjection:
    if isinstance(one, OnDemandProjection):
        return one
    assert isinstance(one, Projection)
    return _current(one, definitions)


def _current(one: Projection, definitions: Definitions) -> Projection:
    """The same projection over the view as it is applied now, which may know more of its schema."""
    applied = definitions.views.get(one.view.name)
    if applied is None:
        return one
    return replace(one, view=applied, features=applied[one.features or applied.fields].features)


def _joined(one: Projection | None, other: Projection) -> Projection:
    """The features of both: of one view, under one name, looked up by the same columns."""
    if one is None:
        return other
    if (one.view.name, dict(one.join_key_map)) != (other.view.name, dict(other.join_key_map)):
        raise InvalidInput(
            f"{one.used_name!r} is two things: view {one.view.name!r} and view {other.view.name!r}, or other join keys",
            remedy="Give one of them another name: view.with_name(...).",
        )
    return replace(one, features=tuple(dict.fromkeys([*one.features, *other.features])))


def _parsed(reference: str) -> tuple[str, str]:
    view, colon, feature = str(reference).partition(":")
    if not colon or not view or not feature:
        raise InvalidInput(f"{reference!r} is no reference to a feature", remedy='Write "view:feature".')
    return view, feature


def _no_view(name: str, definitions: Definitions) -> NotFound:
    known = ", ".join(sorted([*definitions.views, *definitions.on_demand])) or "none; apply some"
    return NotFound(f"there is no feature view {name!r}", remedy=f"Views applied: {known}.")
