"""The model of late arrivals: gradient-boosted trees, small enough to tune in seconds."""

from collections.abc import Mapping
from typing import Any

from lightgbm import LGBMClassifier


def search_space(trial: Any) -> dict[str, Any]:
    return {
        "num_leaves": trial.suggest_int("num_leaves", 7, 31),
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.15, log=True),
        "n_estimators": trial.suggest_int("n_estimators", 60, 160),
        "min_child_samples": trial.suggest_int("min_child_samples", 50, 300),
    }


def estimator(params: Mapping[str, Any], seed: int) -> LGBMClassifier:
    return LGBMClassifier(**params, random_state=seed, deterministic=True, force_row_wise=True, n_jobs=2, verbose=-1)
