"""The point-in-time join: for every event, the feature values as they were known then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

from noria.features.definitions import FeatureView


def join_as_of(events: pl.DataFrame, views: Sequence[FeatureView], *, event_time: str) -> pl.DataFrame:
    """``events`` in their order, with the features of every view as known at each row's ``event_time``.

    A feature row counts at time t when both its event and its created timestamp are <= t; among those the one with
    the latest event wins, ties going to the latest created. Older than the view's TTL, or none: null.
    """
    import polars as pl

    order = "__order"
    joined = events.with_row_index(order).with_columns(pl.col(event_time).dt.cast_time_unit("ms").alias("__at"))
    for view in views:
        joined = _join_view(joined, view, view.load())
    return joined.sort(order).drop(order, "__at")


def _join_view(events: pl.DataFrame, view: FeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    keys = list(view.entity.join_keys)
    visible = as_known(rows, keys).rename(dict(zip(view.fields, view.feature_names, strict=True)))
    right = visible.select(*keys, "visible_at", "event_timestamp", *view.feature_names)
    joined = events.sort("__at").join_asof(
        right.sort("visible_at"), left_on="__at", right_on="visible_at", by=keys, check_sortedness=False
    )
    if view.ttl is not None:
        stale = pl.col("__at") - pl.col("event_timestamp") > view.ttl
        joined = joined.with_columns(
            pl.when(stale).then(None).otherwise(pl.col(name)).alias(name) for name in view.feature_names
        )
    return joined.drop("visible_at", "event_timestamp")


def as_known(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """``rows`` as a history of what was known: at each ``visible_at`` the best row seen until then, per entity.

    A row becomes visible when it both happened and was recorded. Keeping the running maximum of (event, created) in
    order of visibility turns "as known then" into one as-of join: a late, older row never replaces a newer one.
    """
    import polars as pl

    ranked = rows.sort("event_timestamp", "created_timestamp", maintain_order=True).with_row_index("__rank")
    best = (
        ranked.with_columns(visible_at=pl.max_horizontal("event_timestamp", "created_timestamp"))
        .sort("visible_at", "__rank")
        .select(*keys, "visible_at", pl.col("__rank").cum_max().over(list(keys)))
    )
    return best.join(ranked.drop(keys), on="__rank", how="left").drop("__rank")
