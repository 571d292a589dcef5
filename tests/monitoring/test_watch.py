"""A deployment's detectors look at what its own version answered there, and at nothing else in the log."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from noria.monitoring.detectors import PERFORMANCE
from noria.monitoring.log import LabelRecord, PredictionLog
from noria.monitoring.profile import Reference, build_profile
from noria.monitoring.watch import Watch, watch_day
from prediction_logs import batch_of

DAY = date(1970, 1, 1)
ROWS = 40
OTHERS = [{"deployment": "preview"}, {"model": "demand-by-day"}, {"version": 2}]


@pytest.fixture
def watch(tmp_path):
    random = np.random.default_rng(4)
    inputs = {name: random.normal(size=300) for name in ("hour", "riders")}
    days, scores, losses = np.arange(300) % 10, random.uniform(size=300), random.uniform(size=300)
    profile = build_profile(Reference(inputs, days, scores, losses, days))
    return Watch("demand", "hourly", 1, "regression", profile, tmp_path, 100.0, 10, 0)


def answered(log, first, features, score, *, deployment="demand", model="hourly", version=1):
    """Rows of one deployment, each with its label."""
    numbers, arm = range(first, first + ROWS), ("champion", model, version)
    named = [f"p{number}" for number in numbers]
    log.predictions(*batch_of(named, numbers, [features] * ROWS, [score] * ROWS, arm=arm, deployment=deployment))
    log.labels([LabelRecord(name, number, number, 0.5) for name, number in zip(named, numbers, strict=True)])


def watched(database, watch):
    with database.write() as tx:
        return {result.detector: result for result in watch_day(tx, watch, DAY)}


@pytest.mark.parametrize("whose", OTHERS)
def test_rows_of_others_change_nothing(empty_database, watch, whose):
    log = PredictionLog(watch.log)
    answered(log, 0, [1.0, 2.0], 0.4)
    alone = watched(empty_database, watch)
    assert len(alone) == 3 and {result.rows for result in alone.values()} == {ROWS}
    answered(log, 1000, [9.0, 9.0], 0.9, **whose)
    answered(log, 2000, [9.0, 9.0, 9.0], 0.9, **whose)  # takes a column more: no matrix has both
    log.close()
    assert watched(empty_database, watch) == alone


def test_labels_that_name_another_day_than_their_prediction_are_found(empty_database, watch):
    log, day = PredictionLog(watch.log), 86_400_000
    answered(log, 0, [1.0, 2.0], 0.4)
    alone = watched(empty_database, watch)[PERFORMANCE]
    log.labels([LabelRecord(f"p{number}", 5 * day, 5 * day, 0.4) for number in range(ROWS)])  # those of their day stay
    assert watched(empty_database, watch)[PERFORMANCE] == alone
    names, arm = [f"q{number}" for number in range(ROWS)], ("champion", "hourly", 1)
    rows = (names, range(ROWS), [[1.0, 2.0]] * ROWS, [0.4] * ROWS)
    log.predictions(*batch_of(*rows, arm=arm, deployment="demand"))
    times = np.repeat([-1, day, 9 * day], [1, 1, ROWS - 2])
    log.labels([LabelRecord(name, int(at), 9 * day, 0.5) for name, at in zip(names, times, strict=True)])
    log.close()
    assert watched(empty_database, watch)[PERFORMANCE].rows == 2 * ROWS


def test_others_alone_are_too_few_rows(empty_database, watch):
    log = PredictionLog(watch.log)
    answered(log, 0, [1.0, 2.0, 3.0], 0.4, deployment="preview")
    log.close()
    assert watched(empty_database, watch) == {}
