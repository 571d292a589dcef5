"""The features of a composition: all that its members have looked up and computed, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from noria.errors import Conflict
from noria.features import ViewSpec
from noria.features.function_code import load
from noria.optimize.bundle import Bundle, ComputedSpec, Kind


@dataclass(frozen=True, slots=True)
class Features:
    """What stands in a bundle of the features of a composition, and the kinds of columns they are computed from."""

    views: tuple[ViewSpec, ...]
    views_beside: tuple[ViewSpec, ...]
    computed: tuple[ComputedSpec, ...]
    sent_beside: tuple[str, ...]
    kinds: Mapping[str, Kind]


def features_of(folder: Path, members: Mapping[str, Bundle], columns: Collection[str]) -> Features:
    """The features of ``members``, bundles by their place below ``folder``, for a composition that takes ``columns``.

    Columns that features are computed from are sent beside where the composition does not take them itself. Raises
    Conflict where two members have different features of one name.
    """
    bundles = members.values()
    looked_up = _merged(view for bundle in bundles for view in bundle.looked_up)
    taken = {_name(view) for bundle in bundles for view in bundle.views}
    computed: dict[str, ComputedSpec] = {}
    kinds: dict[str, Kind] = {}
    for place, bundle in members.items():
        for spec in bundle.computed:
            known = computed.setdefault(spec.name, msgspec.structs.replace(spec, file=f"{place}/{spec.file}"))
            if (known.definition, known.fields) != (spec.definition, spec.fields):
                raise _clash(spec.name)
            asked = _asked(folder / place / spec.file)
            kinds |= {name: bundle.kinds.get(name, "double") for name in bundle.sent if name in asked}
    return Features(
        tuple(view for name, view in looked_up.items() if name in taken),
        tuple(view for name, view in looked_up.items() if name not in taken),
        tuple(computed.values()),
        tuple(name for name in kinds if name not in columns),
        kinds,
    )


def _merged(views: Iterator[ViewSpec]) -> Mapping[str, ViewSpec]:
    """The views by name; of one that several members take, the features that any of them takes."""
    found: dict[str, ViewSpec] = {}
    for view in views:
        known = found.setdefault(_name(view), view)
        types = dict(zip(known.fields, known.types or ("",) * len(known.fields), strict=True))
        types |= dict(zip(view.fields, view.types or ("",) * len(view.fields), strict=True))
        fields, kinds = tuple(types), tuple(types.values()) if any(types.values()) else ()
        if msgspec.structs.replace(view, fields=known.fields, types=known.types) != known:
            raise _clash(_name(view))
        found[_name(view)] = msgspec.structs.replace(known, fields=fields, types=kinds)
    return found


def _asked(code: Path) -> set[str]:
    """The columns of a request that on-demand features are computed from."""
    return {one.name for one in load(code.read_bytes()).inputs if one.requested}


def _name(view: ViewSpec) -> str:
    return view.alias or view.name


def _clash(name: str) -> Conflict:
    return Conflict(
        f"the members were trained on different definitions of {name!r}",
        remedy="Train them anew on the same one, and compose these versions.",
    )
