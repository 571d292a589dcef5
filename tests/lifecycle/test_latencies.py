"""What a champion's answers took lately, read from the end of a log."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from noria.config import RolloutSettings
from noria.lifecycle.latencies import latencies_lately, spread
from noria.lifecycle.looks import fixed_at_start
from noria.lifecycle.plans import planned
from noria.monitoring.log import PredictionBatch, PredictionLog
from noria.rollout import Strategy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MILLIS = round(NOW.timestamp() * 1000)
DAY = MILLIS // 86_400_000
MINUTE = 60_000


def answers(at: int, seconds: float, rows: int, *, revision: int = 3, variant: str = "champion") -> PredictionBatch:
    return PredictionBatch(
        received_at=at,
        deployment="demand",
        revision=revision,
        variant=variant,
        model="m",
        version=1,
        prediction_ids=[f"{at}-{row}" for row in range(rows)],
        event_times=np.full(rows, at).tobytes(),
        numbers=b"",
        scores=np.zeros(rows).tobytes(),
        predictions=np.zeros(rows).tobytes(),
        latencies=np.full(rows, seconds, np.float32).tobytes(),
    )


def lately(log: Path) -> np.ndarray:
    return latencies_lately(log, "demand", 3, "champion", NOW - timedelta(days=2))


def test_a_busy_moment_at_the_end_does_not_say_what_is_slow(tmp_path):
    log = PredictionLog(tmp_path)
    for second in range(600):
        log.predictions(answers(MILLIS - 1000 * (600 - second), 0.002, 1000), [DAY])
    log.predictions(answers(MILLIS, 0.5, 10_000), [DAY])
    found = lately(tmp_path)
    assert 4000 <= len(found) <= 5000
    assert (found > 0.1).mean() == pytest.approx(10_000 / 610_000, abs=0.002)


def test_what_is_older_than_ten_minutes_counts_only_where_too_little_is_newer(tmp_path):
    log = PredictionLog(tmp_path)
    log.predictions(answers(MILLIS - 60 * MINUTE, 0.5, 4000), [DAY])
    log.predictions(answers(MILLIS, 0.002, 300), [DAY])
    assert len(lately(tmp_path)) == 4300
    log.predictions(answers(MILLIS, 0.002, 9000), [DAY])
    assert lately(tmp_path).max() < 0.1


def test_other_routes_and_variants_say_nothing(tmp_path):
    log = PredictionLog(tmp_path)
    log.predictions(answers(MILLIS, 0.5, 900, revision=2), [DAY])
    log.predictions(answers(MILLIS, 0.5, 900, variant="canary"), [DAY])
    assert not len(lately(tmp_path))
    log.predictions(answers(MILLIS, 0.002, 30), [DAY])
    assert lately(tmp_path) == pytest.approx(np.full(30, 0.002))


def test_a_log_is_read_from_its_end_and_no_further_than_it_takes(tmp_path):
    for number, minutes in enumerate((50, 20, 0)):
        log = PredictionLog(tmp_path)
        log.predictions(answers(MILLIS - minutes * MINUTE, 0.001 * (number + 1), 6000), [DAY])
        log.close()
    oldest, _, newest = sorted(tmp_path.glob("*/*/*.log"))
    oldest.unlink()
    oldest.mkdir()  # which cannot be read
    os.utime(oldest, (newest.stat().st_mtime - 3600,) * 2)
    assert lately(tmp_path).max() == pytest.approx(0.003)


def test_nothing_is_an_empty_sample():
    assert len(spread(np.empty(0, np.int64), np.empty(0))) == 0


def test_the_bar_of_a_step_keeps_to_the_tolerance_of_the_settings():
    fast = 1e-4 * np.random.default_rng(0).lognormal(0, 0.4, 5000)
    bars = [
        fixed_at_start(planned(RolloutSettings(latency_tolerance_seconds=seconds), Strategy.CANARY), fast)["bar"]["bar"]
        for seconds in (0.0, 0.0005, 0.002)
    ]
    assert bars[0] == pytest.approx(np.quantile(fast, 0.9))
    assert np.diff(bars) == pytest.approx([0.0005 - bars[0] * (1 - 1 / 1.1), 0.0015])
