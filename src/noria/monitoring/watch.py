"""One day of a deployment's traffic, put before its detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from noria.monitoring.detectors import INPUT_DRIFT, PERFORMANCE, PREDICTION_DRIFT, blank, judge_inputs, judge_measure
from noria.monitoring.log import LabelRecord, PredictionRecord, labels_of, read_predictions
from noria.monitoring.profile import Profile, losses
from noria.monitoring.records import WindowResult, last_window, save_window
from noria.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched: the rows that one version answered in one deployment, against the version's profile."""

    deployment: str
    model: str
    model_version: int
    task: str
    profile: Profile
    log: Path
    run_length_days: float
    min_rows: int
    label_delay_days: int

    def has(self, record: PredictionRecord) -> bool:
        """Whether a row counts: the log has those of every deployment, whose models may take other inputs."""
        answered = (record.deployment, record.model, record.version)
        return answered == (self.deployment, self.model, self.model_version)


def watch_day(tx: Transaction, watch: Watch, day: date) -> list[WindowResult]:
    """Judge ``day``'s inputs and scores, and the loss of the newest day whose labels are in; store the results."""
    results = [*_inputs_and_scores(tx, watch, day), *_performance(tx, watch, day)]
    for result in results:
        save_window(tx, result)
    return results


def labelled(log: Path, day: date) -> Iterator[tuple[PredictionRecord, LabelRecord]]:
    """The predictions of ``day`` whose label is known, with it."""
    records = list(read_predictions(log, day))
    labels = labels_of(log, {record.prediction_id for record in records}, day)
    for record in records:
        if (label := labels.get(record.prediction_id)) is not None:
            yield record, label


def _inputs_and_scores(tx: Transaction, watch: Watch, day: date) -> Iterator[WindowResult]:
    rows = [r for r in read_predictions(watch.log, day) if watch.has(r)]
    if len(rows) < watch.min_rows:
        return
    matrix = np.array([row.features for row in rows], dtype=np.float64)
    inputs = {name: matrix[:, index] for index, name in enumerate(watch.profile.columns)}
    base, previous = _open(tx, watch, INPUT_DRIFT, day, len(rows))
    yield judge_inputs(watch.profile, inputs, previous, base)
    score = watch.profile.score.mean_rank(np.array([row.score for row in rows]))
    base, previous = _open(tx, watch, PREDICTION_DRIFT, day, len(rows))
    yield judge_measure(watch.profile.score.baseline, score, previous, base, two_sided=True)


def _performance(tx: Transaction, watch: Watch, day: date) -> Iterator[WindowResult]:
    complete = day - timedelta(days=watch.label_delay_days)
    pairs = [pair for pair in labelled(watch.log, complete) if watch.has(pair[0])]
    if len(pairs) < watch.min_rows:
        return
    loss = float(losses(watch.task, *_scores_and_labels(pairs)).mean())
    base, previous = _open(tx, watch, PERFORMANCE, complete, len(pairs))
    yield judge_measure(watch.profile.loss, loss, previous, base, two_sided=False)


def _scores_and_labels(
    pairs: Sequence[tuple[PredictionRecord, LabelRecord]],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    return np.array([p.score for p, _ in pairs]), np.array([label.label for _, label in pairs])


def _open(
    tx: Transaction, watch: Watch, detector: str, day: date, rows: int
) -> tuple[WindowResult, WindowResult | None]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    base = blank(watch.deployment, watch.model_version, detector, start, rows, watch.run_length_days)
    return base, last_window(tx, watch.deployment, watch.model_version, detector, before=start)
