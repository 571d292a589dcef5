"""Health of feature views: how old the newest row is, how far it is online, and how many values are null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from noria.config import FeatureLimits
from noria.features.definitions import FeatureView
from noria.features.parquet_files import pinned
from noria.features.sources import EVENT
from noria.features.times import earlier


@dataclass(frozen=True, slots=True)
class ViewHealth:
    """What one view's source holds now. Rows are those that are not too old (all of them without a TTL).

    ``newest`` is the latest event time that is not in the future, ``online_until`` the time up to which the view was
    materialized; ``null_rates`` is feature → share of nulls. ``broken`` says in words which limits do not hold.
    """

    view: str
    rows: int
    newest: datetime | None
    online_until: datetime | None
    null_rates: Mapping[str, float]
    broken: tuple[str, ...]


def view_health(
    view: FeatureView, folder: Path, limits: Mapping[str, FeatureLimits], *, online_until: datetime | None, at: datetime
) -> ViewHealth:
    """Look at a view's rows as of ``at``; the first pattern that matches its name says its limits.

    Raises InvalidData when the source cannot be read.
    """
    import polars as pl

    since = earlier(at, view.ttl)
    names = [one.name for one in view.columns]
    nulls = [pl.col(name).null_count().alias(name) for name in names]
    with pinned(), view.source.telling(folder, view.name):
        rows = view.source.rows(folder, keys=view.join_keys, fields=view.columns, since=since, until=at)
        found = rows.select(pl.len().alias("__rows"), pl.col(EVENT).max(), *nulls).collect()
    (row,) = found.iter_rows(named=True)
    count, newest = row["__rows"], row[EVENT]
    rates = {name: row[name] / count if count else 0.0 for name in names}
    wanted = next((one for pattern, one in limits.items() if fnmatchcase(view.name, pattern)), FeatureLimits())
    return ViewHealth(view.name, count, newest, online_until, rates, tuple(_broken(wanted, newest, rates, at)))


def _broken(limits: FeatureLimits, newest: datetime | None, rates: Mapping[str, float], at: datetime) -> list[str]:
    found = []
    longest = timedelta(hours=limits.max_age_hours)
    if longest and newest is None:
        found.append("it has no rows")
    elif longest and newest is not None and at - newest > longest:
        found.append(
            f"its newest row is {(at - newest) / timedelta(hours=1):.1f} h old, at most {limits.max_age_hours:g}"
        )
    for name, rate in rates.items():
        if rate > limits.max_null_rate:
            found.append(f"{rate:.1%} of {name!r} is null, at most {limits.max_null_rate:.1%}")
    return found
