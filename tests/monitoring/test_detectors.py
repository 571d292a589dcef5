"""The detectors keep their promise on a still world, and see a moved one."""

from __future__ import annotations

from datetime import date

import msgspec
import numpy as np

from noria.monitoring.detectors import step
from noria.monitoring.log import PredictionLog, find_prediction, read_predictions
from noria.monitoring.profile import baseline
from noria.monitoring.segments import MILLIS_A_DAY
from prediction_logs import batch_of

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


def rows(*numbers):
    return batch_of([f"p{n}" for n in numbers], numbers, [[1.0, None]] * len(numbers), [0.7] * len(numbers))


def test_a_torn_tail_of_the_prediction_log_costs_only_the_torn_batch(tmp_path):
    for first in (0, 100):
        log = PredictionLog(tmp_path)
        log.predictions(*rows(first, first + 1))
        log.predictions(*rows(first + 2))
        log.close()
    segment = sorted(tmp_path.glob("predictions/*/*.log"))[0]
    segment.write_bytes(segment.read_bytes()[:-3])
    assert [r.prediction_id for r in read_predictions(tmp_path)] == ["p0", "p1", "p100", "p101", "p102"]


def test_a_repeated_prediction_is_read_once_as_last_written(tmp_path):
    log = PredictionLog(tmp_path)
    log.predictions(*rows(1))
    log.predictions(*rows(1))
    assert len(list(read_predictions(tmp_path))) == 1


def test_a_batch_over_midnight_lies_in_both_days_and_loses_nothing(tmp_path):
    log = PredictionLog(tmp_path)
    log.predictions(*rows(MILLIS_A_DAY - 1, MILLIS_A_DAY, MILLIS_A_DAY + 1))
    first, second = (list(read_predictions(tmp_path, date(1970, 1, day))) for day in (1, 2))
    assert [r.event_time - MILLIS_A_DAY for r in first + second] == [-1, 0, 1]
    assert len(first) == 1
    assert (second[1].features, second[1].score, second[1].prediction) == ([1.0, None], 0.7, 1.0)


def test_rows_of_one_request_are_found_by_their_numbered_ids(tmp_path):
    log, (batch, days) = PredictionLog(tmp_path), rows(5, 6)
    log.predictions(msgspec.structs.replace(batch, prediction_ids=["whole"]), days)
    assert find_prediction(tmp_path, "whole-1").event_time == 6
    assert find_prediction(tmp_path, "whole-2") is None
    assert find_prediction(tmp_path, "whole") is None
