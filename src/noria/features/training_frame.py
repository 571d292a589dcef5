"""The frame a model learns from: what happened, with what was known then and what is computed from both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import InvalidInput
from noria.features.history import AsOf
from noria.features.join import Engine, here, join_as_of
from noria.features.ray_join import by_ray
from noria.features.selection import Plan

if TYPE_CHECKING:
    import polars as pl


_ENGINES: Mapping[str, Engine] = {"here": here, "ray": by_ray}
"""The names of what joins, as `features.engine` and ``get_historical_features`` take them."""


def joined(
    events: pl.DataFrame,
    wanted: Plan,
    *,
    event_time: str,
    as_of: AsOf = "known",
    folder: Path,
    engine: str = "here",
) -> pl.DataFrame:
    """``events`` with every stored and every computed feature of a plan, as ``view__field``; see ``join_as_of``.

    Stored ones are looked up by the ``engine``, computed ones are computed here. Raises what it and ``engine_of`` do.
    """
    found = join_as_of(
        events, wanted.lookups, event_time=event_time, as_of=as_of, folder=folder, engine=engine_of(engine)
    )
    for one in wanted.computed:
        outputs = one.view.transform_frame(found)
        found = found.with_columns(outputs[name].alias(f"{one.used_name}__{name}") for name in one.features)
    return found


def engine_of(name: str) -> Engine:
    """What joins, by its name. Raises InvalidInput."""
    if name not in _ENGINES:
        raise InvalidInput(f"there is no engine {name!r}", remedy=f"Use {' or '.join(_ENGINES)}.")
    return _ENGINES[name]
