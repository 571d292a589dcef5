"""What units earned: their rewards as the log has them, each once, and no earlier than they were asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from noria.lifecycle.growing import Growing, hash_of, hashes_of
from noria.monitoring.log import RewardRecord
from noria.monitoring.segments import MILLIS_A_DAY

if TYPE_CHECKING:
    import polars as pl

LARGEST = 1e100
"""Of rewards and labels: what is larger, infinite or not a number is left out, as no mean of it would be a number."""
_CLOCKS_DIFFER = 2 * 60_000
"""Milliseconds: a reward observed that little before its unit was asked was so by another machine's clock."""
MINUTE = 60_000
"""In milliseconds."""
_REWARDS = {"id": np.int64, "unit": np.int64, "value": np.float64, "at": np.int64, "key": np.int64}


class Earned:
    """The rewards of one metric that count in one deployment."""

    def __init__(self, deployment: str, metric: str) -> None:
        self._deployment, self._metric = deployment, metric
        self._rewards = Growing(_REWARDS, "key")
        self._nameless = itertools.count()

    @property
    def is_nothing(self) -> bool:
        """Whether none came in yet."""
        return self._rewards.frame().is_empty()

    def add(self, payloads: Iterable[bytes]) -> None:
        """Take in what the log holds by now."""
        decode = msgspec.msgpack.Decoder(list[RewardRecord]).decode
        earned = [one for payload in payloads for one in decode(payload) if self._counts(one)]
        if earned:
            self._rewards.add(
                {
                    "id": hashes_of(one.prediction_id for one in earned),
                    "unit": hashes_of(one.unit for one in earned),
                    "value": np.array([one.value for one in earned]),
                    "at": np.array([one.observed_at for one in earned]),
                    "key": np.array([hash_of(one.key) if one.key else next(self._nameless) for one in earned]),
                }
            )

    def of_units(self, units: pl.DataFrame, answers: pl.DataFrame, window_minutes: float) -> pl.DataFrame:
        """``unit`` and ``value``, the sum of what each earned within its window; 0 minutes are no end.

        Args:
            units: ``unit`` and ``at``, when each was first asked, UTC milliseconds.
            answers: ``id`` and ``unit`` of all answers, by which rewards of predictions are those of units.
            window_minutes: How long after it was first asked what a unit earns counts.
        """
        import polars as pl

        return self._inside(units, answers, window_minutes).group_by("unit").agg(pl.col("value").sum())

    def told(
        self, units: pl.DataFrame, answers: pl.DataFrame, window_minutes: float, since: int, at: int
    ) -> Mapping[str, int]:
        """As ``told``; those that do not count are of nobody who was asked, or too late.

        ``not_final`` are those that count of units whose window is not over ``at`` that instant (UTC milliseconds).
        """
        import polars as pl

        inside = self._inside(units, answers, window_minutes)
        waiting = inside.filter(pl.col("first") + window_minutes * MINUTE > at).height if window_minutes else 0
        found = told(self._rewards.frame(), inside, "key", since)
        return {**found, "not_final": waiting} if waiting else found

    def _inside(self, units: pl.DataFrame, answers: pl.DataFrame, window_minutes: float) -> pl.DataFrame:
        import polars as pl

        known = answers.select("id", known="unit")
        named = (
            self._rewards.frame()
            .join(known, on="id", how="left")
            .with_columns(
                unit=pl.when(pl.col("unit") != 0).then("unit").when(pl.col("known") != 0).then("known").otherwise("id")
            )
        )
        inside = named.join(units.select("unit", first="at"), on="unit", how="inner").filter(_not_before())
        if window_minutes:
            inside = inside.filter(pl.col("at") <= pl.col("first") + window_minutes * MINUTE)
        return inside

    def _counts(self, one: RewardRecord) -> bool:
        ours = one.deployment in ("", self._deployment)
        return ours and one.metric == self._metric and abs(one.value) < LARGEST


def told(outcomes: pl.DataFrame, counted: pl.DataFrame, key: str, since: int) -> Mapping[str, int]:
    """How many outcomes came in, and how many of them count, which are those whose ``key`` is in ``counted``.

    What was observed before ``since`` (UTC milliseconds) and does not count is ``earlier``: the log has all of its day.
    """
    import polars as pl

    others = outcomes.join(counted, on=key, how="anti")
    earlier = others.filter(_latest() < pl.lit(since) - _CLOCKS_DIFFER).height
    found = {"came_in": outcomes.height - earlier, "counted": outcomes.height - others.height}
    return found | ({"earlier": earlier} if earlier else {})


def _not_before() -> pl.Expr:
    """What a unit was worth before it met an arm, no arm earned, unless it says for which answer it is."""
    import polars as pl

    return pl.col("known").is_not_null() | (_latest() >= pl.col("first") - _CLOCKS_DIFFER)


def _latest() -> pl.Expr:
    """When it was observed at the latest: a midnight stands for its day, as whoever has dates alone sends those."""
    import polars as pl

    is_day = pl.col("at") % MILLIS_A_DAY == 0
    return pl.when(is_day).then(pl.col("at") + MILLIS_A_DAY).otherwise(pl.col("at"))
