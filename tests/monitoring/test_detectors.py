"""The detectors keep their promise on a still world, and see a moved one."""

from __future__ import annotations

import numpy as np

from noria.monitoring.detectors import step
from noria.monitoring.log import LogWriter, PredictionRecord, read_predictions
from noria.monitoring.profile import baseline

RUN_LENGTH = 100


def windows_until_alarm(z, limit):
    statistic = 0.0
    for number in range(limit):
        statistic = step(statistic, next(z), two_sided=True)
        if statistic >= RUN_LENGTH:
            return number + 1
    return limit


def test_false_alarms_are_rarer_than_the_run_length_asked_for():
    generator = np.random.default_rng(1)
    runs = [windows_until_alarm(iter(lambda: float(generator.normal()), None), 2000) for _ in range(200)]
    assert np.mean(runs) >= RUN_LENGTH


def test_a_shift_of_one_deviation_is_found_within_two_weeks():
    generator = np.random.default_rng(2)
    runs = [windows_until_alarm(iter(lambda: float(generator.normal(1)), None), 200) for _ in range(200)]
    assert np.median(runs) <= 14


def test_a_correlated_reference_widens_the_baseline():
    generator = np.random.default_rng(3)
    noise = generator.normal(size=60)
    walk = np.zeros(60)
    for day in range(1, 60):
        walk[day] = 0.8 * walk[day - 1] + noise[day]
    assert baseline(walk).deviation > 1.5 * walk.std()


def record(number):
    return PredictionRecord(f"p{number}", number, number, "d", 1, "champion", "m", 1, {}, [1.0, None], 1.0, 0.7)


def test_a_torn_tail_of_the_prediction_log_costs_only_the_torn_batch(tmp_path):
    for first in (0, 100):
        writer = LogWriter(tmp_path, "predictions")
        writer.append([record(first), record(first + 1)])
        writer.append([record(first + 2)])
        writer.close()
    segment = sorted(tmp_path.glob("predictions/*/*.log"))[0]
    segment.write_bytes(segment.read_bytes()[:-3])
    assert [r.prediction_id for r in read_predictions(tmp_path)] == ["p0", "p1", "p100", "p101", "p102"]


def test_a_repeated_prediction_is_read_once_as_last_written(tmp_path):
    writer = LogWriter(tmp_path, "predictions")
    writer.append([record(1)])
    writer.append([record(1)])
    assert len(list(read_predictions(tmp_path))) == 1
