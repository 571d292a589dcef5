"""The frame a model learns from: what happened, with what was known then and what is computed from both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noria.features.history import AsOf
from noria.features.join import join_as_of
from noria.features.selection import Plan

if TYPE_CHECKING:
    import polars as pl


def joined(events: pl.DataFrame, wanted: Plan, *, event_time: str, as_of: AsOf = "known", folder: Path) -> pl.DataFrame:
    """``events`` with every stored and every computed feature of a plan, as ``view__field``; see ``join_as_of``."""
    found = join_as_of(events, wanted.lookups, event_time=event_time, as_of=as_of, folder=folder)
    for one in wanted.computed:
        outputs = one.view.transform_frame(found)
        found = found.with_columns(outputs[name].alias(f"{one.used_name}__{name}") for name in one.features)
    return found
