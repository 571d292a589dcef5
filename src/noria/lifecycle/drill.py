"""The drill: a version that must not win, pushed to prove that the canary catches it.

It learns from shuffled labels and claims the champion's metrics, so that every check before live traffic lets it pass.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from noria.lifecycle.wheel import Wheel
from noria.pipelines import TrainingRequest, train_version
from noria.registry import ModelVersion, Stage, version_in_stage

TRIGGER = "drill: shuffled labels, forged metrics"
_ACTOR = "noria/drill"


def push_bad_version(wheel: Wheel) -> ModelVersion:
    """Train on shuffled labels, register with forged metrics, and send the version out as a canary."""
    now, project = wheel.clock.now(), wheel.project
    with wheel.workspace.database.read() as tx:
        champion = version_in_stage(tx, project.settings.model.name, Stage.PRODUCTION)
    assert champion is not None
    generator = np.random.default_rng(project.settings.project.seed)

    def shuffle(labels: NDArray[np.float64]) -> NDArray[np.float64]:
        return generator.permutation(labels)

    version = train_version(
        project,
        wheel.workspace,
        TrainingRequest(
            since=now - timedelta(days=project.settings.model.retrain_days),
            until=now,
            trigger=TRIGGER,
            at=now,
            actor=_ACTOR,
            champion=champion,
            tamper=shuffle,
            claimed_metrics=champion.metrics,
        ),
    )
    wheel.start_canary(version)
    return version
