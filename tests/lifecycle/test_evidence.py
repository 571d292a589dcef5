"""What a rollout's evidence counts, however the log grows: every id once, every unit by its first row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from noria.lifecycle.evidence import Evidence
from noria.monitoring.log import (
    REWARDS,
    FailureRecord,
    LabelRecord,
    PredictionBatch,
    PredictionLog,
    RewardRecord,
    read_records,
)
from noria.monitoring.segments import SegmentWriter
from noria.rollout.estimates import Moments
from noria.rollout.plan import RewardPlan
from noria.rollout.planning import LatencyBar

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MILLIS = round(NOW.timestamp() * 1000)
Row = tuple[str, str, str, float]
"""Id, unit, variant, seconds."""


def batch(variant: str, rows: list[Row], *, with_units: bool) -> PredictionBatch:
    count = len(rows)
    return PredictionBatch(
        received_at=MILLIS,
        deployment="demand",
        revision=1,
        variant=variant,
        model="m",
        version=1,
        prediction_ids=[row[0] for row in rows],
        event_times=np.full(count, MILLIS).tobytes(),
        numbers=b"",
        scores=np.linspace(0, 1, count).tobytes(),
        predictions=np.ones(count).tobytes(),
        latencies=np.array([row[3] for row in rows], np.float32).tobytes(),
        units=[row[1] for row in rows] if with_units else (),
    )


@pytest.mark.parametrize("with_units", [True, False])
def test_what_is_repeated_counts_once_in_whichever_look_it_comes(tmp_path: Path, with_units: bool) -> None:
    random = np.random.default_rng(3)
    log, evidence = PredictionLog(tmp_path), Evidence(tmp_path, "demand", NOW)
    bar = LatencyBar(0.5, 0.5, 0.6)
    ids: set[str] = set()
    kept: list[Row] = []
    failed: list[Row] = [("", "u7", "challenger", 0.0)]
    for _ in range(40):
        for variant in ("champion", "challenger"):
            names = [str(number) for number in random.integers(0, 4000, random.integers(1, 90))]
            units = [f"u{number}" if number else "" for number in random.integers(0, 300, len(names))]
            rows = [(*one, variant, float(random.random())) for one in zip(names, units, strict=True)]
            log.predictions(batch(variant, rows, with_units=with_units), [MILLIS // 86_400_000])
            for row in rows:
                if row[0] not in ids:
                    ids.add(row[0])
                    kept.append(row if with_units else (row[0], "", *row[2:]))
        log.failures([FailureRecord(MILLIS, "demand", 1, "challenger", "m", 1, "failed", 1, "u7")])
        evidence.refresh({1: 0})
        for variant in ("champion", "challenger"):
            found = evidence.arm(0, variant, 0.5, bar, 0)
            errors = int(variant == "challenger")
            mine = firsts(kept, variant)
            assert found.exposed == found.requests == len({row[1] or row[0] for row in [*mine, *failed[:errors]]})
            assert found.errors == errors
            slow = [row for row in kept if row[3] > 0.5]
            assert found.slow == len(firsts(slow, variant))
    assert evidence.rows()["id"].n_unique() == len(ids) == len(kept)


def test_rewards_and_labels_that_are_no_numbers_are_no_evidence_whoever_logged_them(tmp_path: Path) -> None:
    log, day = PredictionLog(tmp_path), MILLIS // 86_400_000
    log.predictions(batch("v2", [(name, "", "v2", 0.1) for name in ("p", "q")], with_units=False), [day])
    log.rewards([RewardRecord(MILLIS, value, "p") for value in (float("inf"), float("nan"), 1e308, 1e308)])
    log.rewards([RewardRecord(MILLIS, 3.0, "q")])
    log.labels([LabelRecord("p", MILLIS, MILLIS, float("inf"))])
    evidence = Evidence(tmp_path, "demand", NOW)
    evidence.refresh({1: 0})
    assert evidence.outcome(RewardPlan(window_minutes=0), NOW, "v2", 0.5).rewards == Moments(1, 3.0, 0.0)
    assert evidence.labelled("v2") is None


def test_a_reward_counts_in_its_deployment_alone_and_in_all_without_one(tmp_path: Path) -> None:
    log, day = PredictionLog(tmp_path), MILLIS // 86_400_000
    log.predictions(batch("v2", [("p", "u", "v2", 0.1)], with_units=True), [day])
    for value, deployment in ((1.0, "demand"), (2.0, ""), (100.0, "other")):
        log.rewards([RewardRecord(MILLIS, value, unit="u", deployment=deployment)])
    evidence = Evidence(tmp_path, "demand", NOW)
    evidence.refresh({1: 0})
    assert evidence.outcome(RewardPlan(window_minutes=0), NOW, "v2", 0.5).rewards == Moments(1, 3.0, 0.0)


def test_a_unit_earned_nothing_for_an_arm_before_it_was_asked(tmp_path: Path) -> None:
    log, day, hour = PredictionLog(tmp_path), MILLIS // 86_400_000, 3_600_000
    log.predictions(batch("v2", [("p", "u", "v2", 0.1)], with_units=True), [day])
    midnight = MILLIS - MILLIS % 86_400_000
    log.rewards([RewardRecord(MILLIS - hour, 1000.0, unit="u"), RewardRecord(midnight - 24 * hour, 100.0, unit="u")])
    clocks_differ = RewardRecord(MILLIS - 60_000, 1.0, unit="u")
    log.rewards([clocks_differ, RewardRecord(midnight, 2.0, unit="u"), RewardRecord(MILLIS - hour, 4.0, "p")])
    evidence = Evidence(tmp_path, "demand", NOW)
    evidence.refresh({1: 0})
    assert evidence.outcome(RewardPlan(window_minutes=0), NOW, "v2", 0.5).rewards == Moments(1, 7.0, 0.0)
    assert evidence.rewards_told(RewardPlan(window_minutes=0), NOW) == {"came_in": 3, "counted": 3, "earlier": 2}
    waiting = evidence.rewards_told(RewardPlan(window_minutes=60), NOW)
    assert waiting == {"came_in": 3, "counted": 3, "not_final": 3, "earlier": 2}
    final = evidence.rewards_told(RewardPlan(window_minutes=60), NOW + timedelta(hours=2))
    assert final == {"came_in": 3, "counted": 3, "earlier": 2}


def test_a_rollout_begun_by_a_clock_that_is_ahead_sees_what_was_logged_meanwhile(tmp_path: Path) -> None:
    log, day = PredictionLog(tmp_path), MILLIS // 86_400_000
    log.predictions(batch("v2", [("p", "u", "v2", 0.1)], with_units=True), [day])
    evidence = Evidence(tmp_path, "demand", datetime.now(UTC) + timedelta(minutes=1))
    evidence.refresh({1: 0})
    assert evidence.rows().height == 1


def test_a_reward_that_was_logged_twice_counts_once(tmp_path: Path) -> None:
    log, day = PredictionLog(tmp_path), MILLIS // 86_400_000
    log.predictions(batch("v2", [("p", "u", "v2", 0.1)], with_units=True), [day])
    evidence = Evidence(tmp_path, "demand", NOW)
    for _ in range(2):  # two gateways' logs: one was slow to answer, so the other was asked
        log.rewards([RewardRecord(MILLIS, 1.0, unit="u", key="k"), RewardRecord(MILLIS, 10.0, unit="u")])
        evidence.refresh({1: 0})
    assert evidence.outcome(RewardPlan(window_minutes=0), NOW, "v2", 0.5).rewards == Moments(1, 21.0, 0.0)


def test_a_unit_that_is_answered_and_failed_is_one_that_was_asked(tmp_path: Path) -> None:
    log, day = PredictionLog(tmp_path), MILLIS // 86_400_000
    for variant in ("champion", "canary"):
        rows = [(f"{variant}{n}", f"{variant}{n}", variant, 0.1) for n in range(100)]
        log.predictions(batch(variant, rows, with_units=True), [day])
    failed = [FailureRecord(MILLIS, "demand", 1, "canary", "m", 1, "x", 1, f"canary{n}") for n in range(80)]
    log.failures([*failed, FailureRecord(MILLIS, "demand", 1, "canary", "m", 1, "x", 1, "never answered")])
    evidence = Evidence(tmp_path, "demand", NOW)
    evidence.refresh({1: 0})
    found = evidence.arm(0, "canary", 0.5, None, 0)
    assert (found.requests, found.errors, found.exposed) == (101, 81, 101)


def test_rewards_logged_before_they_named_a_deployment_are_read(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / REWARDS)
    writer.append(MILLIS // 86_400_000, msgspec.msgpack.encode([[MILLIS, 3.0, "p", "u", "reward"]]))
    writer.close()
    (found,) = read_records(tmp_path, REWARDS, RewardRecord)
    assert (found.value, found.deployment) == (3.0, "")


def test_what_is_alone_is_counted_by_each_units_first_request_in_its_own_step(tmp_path: Path) -> None:
    log, day = PredictionLog(tmp_path), MILLIS // 86_400_000
    rows = [(f"p{number}", f"u{number % 10}", "canary", 0.1 * (number < 3)) for number in range(30)]
    for step, revision in ((0, 1), (1, 2)):  # the same users again
        one = batch("canary", [(f"{step}-{name}", *rest) for name, *rest in rows], with_units=True)
        log.predictions(replace(one, revision=revision), [day])
        failures = [(MILLIS - 1, "u7"), (MILLIS + 1, "u8"), (MILLIS + 1, ""), (MILLIS + 2, "")]
        log.failures([FailureRecord(at, "demand", revision, "canary", "m", 1, "x", 1, unit) for at, unit in failures])
    evidence = Evidence(tmp_path, "demand", NOW)
    evidence.refresh({1: 0, 2: 1})
    bar = LatencyBar(0.05, 0.1, 0.2)
    for steps in ([0], [1], [0, 1]):
        alone = 2 * len(steps)  # failures of nobody
        found = evidence.first_requests(steps, "canary", bar)
        assert (found.requests, found.errors, found.slow) == (10 + alone, 1 + alone, 3)
    nobody = evidence.first_requests([2], "canary", bar)
    assert (nobody.requests, nobody.errors, nobody.slow) == (0, 0, 0)


def firsts(rows: list[Row], variant: str) -> list[Row]:
    """A variant's rows that are the first of their unit, in whichever variant that had it before; or have none."""
    seen: set[str] = set()
    found = []
    for row in rows:
        if row[1] and row[1] in seen:
            continue
        seen.add(row[1])
        if row[2] == variant:
            found.append(row)
    return found
