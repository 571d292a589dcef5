"""Evidence: what the prediction log says of a rollout's arms, gathered as the log grows.

It is a function of the log and of the rollout's record alone: a controller that starts anew comes to the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.clock import to_millis
from noria.lifecycle.earned import LARGEST, MINUTE, Earned, told
from noria.lifecycle.growing import Growing, hash_of, hashes_of
from noria.lifecycle.latencies import spread
from noria.monitoring.log import (
    DROPPED,
    FAILURES,
    LABELS,
    PREDICTIONS,
    REWARDS,
    SHADOWS,
    BatchColumns,
    FailureRecord,
    LabelRecord,
    PredictionBatch,
    batches_in,
)
from noria.monitoring.tail import Tail
from noria.rollout.bandits import ArmRewards
from noria.rollout.estimates import Moments
from noria.rollout.evidence import ArmEvidence
from noria.rollout.experiments import ArmOutcome
from noria.rollout.plan import RewardPlan
from noria.rollout.planning import LatencyBar

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]

_SAMPLE = 20_000
_SEED = 7
_LATELY = 1000
_CLOCKS_DIFFER = timedelta(minutes=10)
"""How far behind the clock that began a rollout one may be that dates the log's files: reading more harms nobody."""
_ROWS = {
    "id": np.int64, "unit": np.int64, "step": np.int16, "variant": np.int64, "at": np.int64, "score": np.float64,
    "prediction": np.int64, "latency": np.float32, "row": np.int64,
}  # fmt: skip
_FAILED = {
    "unit": np.int64, "step": np.int16, "variant": np.int64, "requests": np.int64, "at": np.int64, "code": np.int64,
}  # fmt: skip
_LABELS = {"id": np.int64, "label": np.float64, "at": np.int64}


@dataclass(frozen=True, slots=True)
class FirstRequests:
    """How many there were, how many of them failed, and how many were answered slowly."""

    requests: int
    errors: int
    slow: int


class Evidence:
    """What happened in one rollout. ``steps`` maps route revisions to its steps; what other revisions served is none.

    Where requests name units, a unit's first answer, first slow answer and first failure count, each once in the whole
    rollout: later ones are no independent draws of the arm.
    """

    def __init__(self, log: Path, deployment: str, since: datetime, *, metric: str = "reward", keep_rows: bool = False):
        by_any_clock = since - _CLOCKS_DIFFER
        self._tails = {
            kind: Tail(log, kind, by_any_clock) for kind in (PREDICTIONS, SHADOWS, FAILURES, LABELS, REWARDS)
        }
        self._since = to_millis(since)
        self._deployment, self._keep_rows = deployment, keep_rows
        self._answered, self._shadowed = Growing(_ROWS, "id", of_units=True), Growing(_ROWS, "id")
        self._failed = Growing(_FAILED, of_units=True)
        self._labels, self._earned = Growing(_LABELS), Earned(deployment, metric)
        self._numbers: list[Floats] = []
        self._count = 0

    def refresh(self, steps: Mapping[int, int]) -> None:
        """Take in what the log holds by now."""
        for target, kind in ((self._answered, PREDICTIONS), (self._shadowed, SHADOWS)):
            for payload in self._tails[kind].read():
                for batch in batches_in(payload):
                    self._add(target, batch, steps)
        self._add_failures(self._tails[FAILURES].read(), steps)
        self._add_outcomes()

    def rows(self) -> pl.DataFrame:
        """All answers, oldest first, a repeated id once."""
        return self._answered.frame()

    def champion_latencies(self) -> Floats:
        """Seconds of the champion's answers lately, as ``spread``."""
        import polars as pl

        frame = self.rows().lazy().filter(pl.col("variant") == hash_of("champion")).select("at", "latency").collect()
        return spread(frame["at"].to_numpy(), frame["latency"].cast(pl.Float64).to_numpy())

    def arm(self, step: int, variant: str, share: float, bar: LatencyBar | None, bar_since: int) -> ArmEvidence:
        """What one arm did in one step; slow answers are those above ``bar`` since ``bar_since`` (UTC milliseconds)."""
        import polars as pl

        mine = (pl.col("step") == step) & (pl.col("variant") == hash_of(variant))
        answered = self.rows().filter(mine & pl.col("first"))
        failed = self._failed.frame().filter(mine & pl.col("first"))
        errors = int(failed["requests"].sum())
        failed_alone = int(_not_answered(failed, answered)["requests"].sum())
        ever = self.rows().filter(pl.col("first") & (pl.col("variant") == hash_of(variant)))
        slow = None
        if bar is not None:
            above = self.rows().filter((pl.col("latency") > bar.bar) & (pl.col("at") >= bar_since))
            slow = _first_of_units(above).filter(mine).height
        scores = answered["score"].sample(min(_SAMPLE, answered.height), seed=_SEED).to_numpy()
        return ArmEvidence(
            share,
            answered.height + failed_alone,
            errors,
            slow,
            scores if len(scores) else None,
            self.labelled(variant, step),
            self.rewards_of(variant, step),
            answered.height + int(_not_answered(failed, ever)["requests"].sum()),
        )

    def first_requests(
        self, steps: Collection[int], variant: str, bar: LatencyBar | None = None, bar_since: int = 0
    ) -> FirstRequests:
        """An arm's in some steps, each unit by its first one there, whatever became of it in other steps."""
        import polars as pl

        mine = (pl.col("step").is_in(list(steps))) & (pl.col("variant") == hash_of(variant))
        both = self._asked(mine, bar, bar_since)
        first = both.filter(pl.col("unit") != 0).sort("at", maintain_order=True).unique("unit", keep="first")
        once = first.with_columns(pl.col("requests", "failed").clip(0, 1))
        counted = pl.concat([both.filter(pl.col("unit") == 0), once])
        return FirstRequests(*(int(counted[name].sum()) for name in ("requests", "failed", "slow")))

    def pulls(self, variant: str, bar: LatencyBar | None, bar_since: int) -> pl.DataFrame:
        """An arm's units in all steps: when each was first asked, and whether it ``failed`` or was ``slow``."""
        import polars as pl

        return self._asked((pl.col("variant") == hash_of(variant)) & pl.col("first"), bar, bar_since)

    def shares_lately(self, variants: Sequence[str]) -> Mapping[str, float]:
        """The parts of the newest units that fell on each arm; none without any."""
        import polars as pl

        asked = pl.concat([self.pulls(name, None, 0).select("at", name=pl.lit(name)) for name in variants])
        newest = asked.sort("at").tail(_LATELY)
        return {name: float((newest["name"] == name).mean()) for name in variants} if newest.height else {}  # type: ignore[arg-type]

    def _asked(self, which: pl.Expr, bar: LatencyBar | None, bar_since: int) -> pl.DataFrame:
        """Answers and failures; slow are answers above ``bar`` since ``bar_since`` (UTC milliseconds)."""
        import polars as pl

        over = pl.lit(value=False) if bar is None else (pl.col("latency") > bar.bar) & (pl.col("at") >= bar_since)
        answered = self.rows().filter(which).select("unit", "at", failed=0, requests=1, slow=over.cast(pl.Int64))
        failed = self._failed.frame().filter(which).select("unit", "at", failed="requests", requests="requests", slow=0)
        return pl.concat([failed, answered], how="vertical_relaxed")

    def labelled(self, variant: str, step: int | None = None) -> tuple[Floats, Floats] | None:
        """Scores and labels of an arm's answers whose label is known, in one step or in all; None without any."""
        import polars as pl

        labels = self._labels.frame()
        if labels.is_empty():
            return None
        mine = pl.col("variant") == hash_of(variant)
        mine = mine if step is None else mine & (pl.col("step") == step)
        known = self.rows().filter(mine).join(labels.unique("id", keep="last"), on="id", how="inner")
        return (known["score"].to_numpy(), known["label"].to_numpy()) if known.height else None

    def labels_told(self) -> Mapping[str, int]:
        """How many labels came in since the rollout began, and how many of them are of what it answered."""
        return told(self._labels.frame().unique("id", keep="last"), self.rows(), "id", self._since)

    # rewards

    def final_rewards(self, plan: RewardPlan, at: datetime) -> pl.DataFrame:
        """One row a unit: first step and variant, the sum of its rewards, and whether that is final at ``at``.

        A unit whose request failed is one too, with ``plan.missing`` for good, unless that arm answered it after all.
        """
        import polars as pl

        units = self._units()
        summed = self._earned.of_units(units, self.rows(), plan.window_minutes)
        over = pl.col("at") + plan.window_minutes * MINUTE <= to_millis(at)
        final = over if plan.window_minutes else pl.col("value").is_not_null()
        answered = units.join(summed, on="unit", how="left").with_columns(
            final=final, value=pl.col("value").fill_null(plan.missing), failed=pl.lit(value=False)
        )
        failed = self._failed_units(units).with_columns(
            final=pl.lit(value=True), value=pl.lit(float(plan.missing)), failed=pl.lit(value=True)
        )
        return pl.concat([answered.select(failed.columns), failed])

    def _failed_units(self, answered: pl.DataFrame) -> pl.DataFrame:
        """The first failure of every unit that its arm did not answer; a request that names none is one by itself."""
        import polars as pl

        alone = -1 - pl.int_range(pl.len())
        failed = self._failed.frame().filter("first")
        named = failed.with_columns(unit=pl.when(pl.col("unit") != 0).then("unit").otherwise(alone), row=pl.lit(-1))
        unanswered = named.join(answered, on=["unit", "variant"], how="anti")
        return unanswered.select("unit", "step", "variant", "at", pl.col("row").cast(pl.Int64))

    def rewards_of(self, variant: str, step: int | None = None) -> Moments | None:
        """The rewards of an arm that came in, whatever their window, in one step or in all; None without any."""
        import polars as pl

        if self._earned.is_nothing:
            return None
        everything = RewardPlan(window_minutes=0)
        summed = self.final_rewards(everything, datetime.now().astimezone())
        summed = summed if step is None else summed.filter(pl.col("step") == step)
        mine = summed.filter((pl.col("variant") == hash_of(variant)) & pl.col("final") & ~pl.col("failed"))
        return Moments.of(mine["value"].to_numpy()) if mine.height else None

    def outcome(self, plan: RewardPlan, at: datetime, variant: str, share: float) -> ArmOutcome:
        """An experiment's arm, all steps together."""
        import polars as pl

        units = self.final_rewards(plan, at).filter(pl.col("variant") == hash_of(variant))
        final = units.filter("final")
        return ArmOutcome(variant, share, units.height, Moments.of(final["value"].to_numpy()))

    def rewards_told(self, plan: RewardPlan, at: datetime) -> Mapping[str, int]:
        """How many rewards came in since the rollout began, how many of them count, and are not final at ``at``."""
        return self._earned.told(self._units(), self.rows(), plan.window_minutes, self._since, to_millis(at))

    def arm_rewards(self, plan: RewardPlan, at: datetime, variant: str) -> ArmRewards:
        """A bandit's arm: what is final, what failed among it, and how many answers still wait."""
        import polars as pl

        units = self.final_rewards(plan, at).filter(pl.col("variant") == hash_of(variant))
        final = units.filter("final")
        return ArmRewards(variant, Moments.of(final["value"].to_numpy()), units.height - final.height)

    def contexts(
        self, plan: RewardPlan, at: datetime, variants: Sequence[str]
    ) -> tuple[Floats, NDArray[np.int64], Floats]:
        """For a contextual bandit: features of each unit's first answer, its arm by index, its reward or NaN.

        What failed was not logged with its features: those of answers, picked at random, stand in for them. Without any
        the arm would look untried wherever it failed.
        """
        import polars as pl

        keys = [hash_of(name) for name in variants]
        units = self.final_rewards(plan, at).filter(pl.col("variant").is_in(keys))
        if not self._numbers:
            return np.empty((0, 0)), np.empty(0, np.int64), np.empty(0)
        numbers = np.concatenate(self._numbers)
        chosen = np.array([keys.index(key) for key in units["variant"]], dtype=np.int64)
        rewards = units.select(pl.when("final").then("value").otherwise(None)).to_series().to_numpy()
        rows, others = units["row"].to_numpy(), np.random.default_rng(_SEED).integers(0, len(numbers), units.height)
        contexts = numbers[np.where(rows < 0, others, rows)]
        contexts[~np.isfinite(contexts)] = np.nan
        return contexts, chosen, np.asarray(rewards, dtype=np.float64)

    # shadows

    def shadow_pairs(self) -> pl.DataFrame:
        """What the champion and its shadow answered to the same requests: one row a request both answered."""
        shadows = self._shadowed.frame().select(
            "id", shadow="score", shadow_prediction="prediction", shadow_latency="latency"
        )
        return self.rows().join(shadows, on="id", how="inner")

    def not_shadowed(self, variant: str) -> tuple[int, int]:
        """Rows that a shadow failed to score, and rows it was not asked because it was behind."""
        import polars as pl

        mine = self._failed.frame().filter(pl.col("variant") == hash_of(variant))
        dropped = int(mine.filter(pl.col("code") == hash_of(DROPPED))["requests"].sum())
        return int(mine["requests"].sum()) - dropped, dropped

    def shadow_labelled(self) -> tuple[Floats, Floats, Floats] | None:
        """Labels, and the champion's and the shadow's scores of the same requests; None without any."""
        labels = self._labels.frame()
        if labels.is_empty():
            return None
        known = self.shadow_pairs().join(labels.unique("id", keep="last"), on="id", how="inner")
        return (
            (known["label"].to_numpy(), known["score"].to_numpy(), known["shadow"].to_numpy()) if known.height else None
        )

    # taking in

    def _add(self, target: Growing, batch: PredictionBatch, steps: Mapping[int, int]) -> None:
        step = steps.get(batch.revision)
        if batch.deployment != self._deployment or step is None or not batch.latencies:
            return  # without latencies: an older Noria's rows, which would count as fast ones
        columns = BatchColumns.of(batch)
        rows = len(columns.prediction_ids)
        target.add(
            {
                "id": hashes_of(columns.prediction_ids),
                "unit": hashes_of(batch.units) if batch.units else _unit_of(batch, rows),
                "step": step,
                "variant": hash_of(batch.variant),
                "at": batch.received_at,
                "score": columns.scores,
                "prediction": hashes_of(map(str, columns.predictions)),
                "latency": columns.latencies,
                "row": np.arange(self._count, self._count + rows),
            }
        )
        if target is self._answered:
            self._count += rows
            if self._keep_rows:
                self._numbers.append(columns.numbers)

    def _add_failures(self, payloads: Iterable[bytes], steps: Mapping[int, int]) -> None:
        decode = msgspec.msgpack.Decoder(list[FailureRecord]).decode
        found = [one for payload in payloads for one in decode(payload) if one.deployment == self._deployment]
        found = [one for one in found if one.revision in steps]
        if found:
            self._failed.add(
                {
                    "unit": hashes_of(one.unit for one in found),
                    "step": np.array([steps[one.revision] for one in found]),
                    "variant": hashes_of(one.variant for one in found),
                    "requests": np.array([one.requests for one in found]),
                    "at": np.array([one.received_at for one in found]),
                    "code": hashes_of(one.code for one in found),
                }
            )

    def _add_outcomes(self) -> None:
        labels = msgspec.msgpack.Decoder(list[LabelRecord]).decode
        known = [one for payload in self._tails[LABELS].read() for one in labels(payload) if abs(one.label) < LARGEST]
        if known:
            labelled, at = np.array([one.label for one in known]), np.array([one.observed_at for one in known])
            self._labels.add({"id": hashes_of(one.prediction_id for one in known), "label": labelled, "at": at})
        self._earned.add(self._tails[REWARDS].read())

    def _units(self) -> pl.DataFrame:
        """The first answer of every unit; a request that names none is one by itself."""
        import polars as pl

        named = pl.when(pl.col("unit") != 0).then("unit").otherwise("id")
        return self.rows().filter("first").with_columns(unit=named)


def _not_answered(failed: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    """An arm's failures of nobody, and of units that are not among those it ``answered``: who is counts there."""
    import polars as pl

    return failed.join(answered.filter(pl.col("unit") != 0), on="unit", how="anti")


def _first_of_units(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without a unit's later rows; rows without a unit all stay."""
    import polars as pl

    named = frame.filter(pl.col("unit") != 0)
    if named.is_empty():
        return frame
    return pl.concat([frame.filter(pl.col("unit") == 0), named.unique("unit", keep="first", maintain_order=True)])


def _unit_of(batch: PredictionBatch, rows: int) -> int:
    """The rows of one request are one draw of the arm: they count as one unit, which its id names."""
    alone = len(batch.prediction_ids) == 1 and rows > 1
    return hash_of(batch.prediction_ids[0]) if alone else 0
