"""Objectives of sweeps, in a module that worker processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def digits(params, trial):
    """Accuracy of a linear classifier on digits, reported after every epoch."""
    import optuna
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier

    table, labels = load_digits(return_X_y=True)
    model = SGDClassifier(alpha=params["alpha"], eta0=params["eta0"], learning_rate="constant", random_state=0)
    score = 0.0
    for epoch in range(4):
        model.partial_fit(table[:1000] / 16, labels[:1000], classes=range(10))
        score = model.score(table[1000:] / 16, labels[1000:])
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


def parabola(trial):
    """Best at 3; fails right of 9."""
    x = trial.suggest_float("x", 0, 10)
    if x > 9:
        raise ValueError(f"{x} is too far")
    print("not an answer")
    return -((x - 3) ** 2)


def dies_once(params):
    """Its process is killed the first time."""
    marker = Path(os.environ["DIES_ONCE"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return params["x"]


def always_dies(params):
    """Its process is interrupted each time, as by Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


def held(params):
    """The first trial ends at once, others when the file "held" is gone."""
    try:
        Path("first").touch(exist_ok=False)
    except FileExistsError:
        while Path("held").exists():
            time.sleep(0.05)
    return params["x"]


def broken(params):
    """Has no value."""
    raise ValueError("no data")
