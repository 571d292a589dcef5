"""Rows to check a graph with, when nobody gives any: made of what the fitted model itself compares with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 4000
_SEED = 20130301
_SHARE_MISSING = 0.03


def sample(
    model: Any, columns: Sequence[tuple[str, str]], example: Any = None
) -> tuple[NDArray[np.float64], NDArray[np.object_] | None]:
    """Numbers (rows, numeric columns) and texts (rows, texts) or None.

    Values come from the example (a pandas frame, or None), the categories and thresholds of the model, and scales of
    1 to 1000; some numbers are missing.
    """
    random = np.random.default_rng(_SEED)
    thresholds = list(_thresholds(model, len(columns)))
    categories = dict(categories_of(model, [name for name, _ in columns]))
    numbers, texts = [], []
    for place, (name, kind) in enumerate(columns):
        seen = [] if example is None or name not in example else example[name].dropna().tolist()
        if kind == "string":
            texts.append(random.choice(np.array(categories.get(name) or seen or ["a", "b"], dtype=object), ROWS))
            continue
        pool = np.array([*_floats(seen), *_floats(categories.get(name, ())), *(t for p, t in thresholds if p == place)])
        numbers.append(_numbers(random, pool, whole=kind in ("long", "integer", "boolean"), boolean=kind == "boolean"))
    matrix = np.stack(numbers, axis=1) if numbers else np.empty((ROWS, 0))
    return matrix, np.stack(texts, axis=1) if texts else None


def _numbers(random: np.random.Generator, pool: NDArray[np.float64], *, whole: bool, boolean: bool) -> NDArray[Any]:
    """A column: half of it near values that matter to the model, where there are some."""
    if boolean:
        return random.integers(0, 2, ROWS).astype(np.float64)
    found = random.normal(size=ROWS) * random.choice([1.0, 10.0, 100.0, 1000.0], ROWS)
    if len(pool):
        spread = float(np.std(pool)) or 1.0
        near = random.choice(pool, ROWS) + random.choice([0.0, 0.0, 1e-3, -1e-3, 0.3, -0.3], ROWS) * spread
        found = np.where(random.random(ROWS) < 0.9, near, found)
    return np.round(found) if whole else np.where(random.random(ROWS) < _SHARE_MISSING, np.nan, found)


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float | np.number) and np.isfinite(value)]


def _thresholds(model: Any, width: int) -> Iterator[tuple[int, float]]:
    """Column and threshold of every split on a column as it is sent."""
    for part in _parts(model):
        tree = getattr(part, "tree_", None)
        if tree is not None and getattr(part, "n_features_in_", 0) == width:
            yield from ((int(f), float(t)) for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0)
        mean, scale = getattr(part, "mean_", None), getattr(part, "scale_", None)
        if mean is not None and scale is not None and np.ndim(mean) == 1 and len(mean) == width:
            for steps in (-1, 0, 1):
                yield from enumerate((mean + steps * scale).tolist())
    booster = _booster(model)
    if booster is not None:
        yield from booster


def _booster(model: Any) -> list[tuple[int, float]] | None:
    kind = type(model).__module__.split(".")[0]
    if kind == "lightgbm":
        frame = getattr(model, "booster_", model).trees_to_dataframe()
        splits = frame[frame["threshold"].notna()]
        names = getattr(model, "booster_", model).feature_name()
        return [(names.index(f), float(t)) for f, t in zip(splits["split_feature"], splits["threshold"], strict=True)
                if isinstance(t, int | float)]  # fmt: skip
    if kind == "xgboost":
        booster = model.get_booster() if hasattr(model, "get_booster") else model
        frame = booster.trees_to_dataframe()
        names = booster.feature_names or [f"f{place}" for place in range(booster.num_features())]
        splits = frame[frame["Feature"] != "Leaf"]
        return [(names.index(f), float(t)) for f, t in zip(splits["Feature"], splits["Split"], strict=True)]
    return None


def categories_of(model: Any, names: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """The categories that encoders know, by column."""
    for part in _parts(model):
        for _, transformer, chosen in getattr(part, "transformers_", ()):
            for encoder in _parts(transformer):
                listed = getattr(encoder, "categories_", None)
                if listed is not None and not isinstance(chosen, slice | str) and len(listed) == len(chosen):
                    for column, values in zip(chosen, listed, strict=True):
                        yield (column if isinstance(column, str) else names[int(column)]), list(values)
        if hasattr(part, "categories_") and len(part.categories_) == len(names):
            yield from ((name, list(values)) for name, values in zip(names, part.categories_, strict=True))


def _parts(model: Any) -> Iterator[Any]:
    """The model and the estimators within it."""
    yield model
    for name in ("steps", "estimators_", "estimator_", "best_estimator_", "calibrated_classifiers_"):
        for one in _listed(getattr(model, name, None)):
            yield from _parts(one)


def _listed(found: Any) -> list[Any]:
    if found is None:
        return []
    items = found.ravel().tolist() if isinstance(found, np.ndarray) else found
    items = items if isinstance(items, list | tuple) else [items]
    return [item[1] if isinstance(item, tuple) else item for item in items if not isinstance(item, str)]
