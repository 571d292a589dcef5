"""The numbers that a fitted model compares its columns with: thresholds, means, what stands for a missing number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Marks = Mapping[int, Sequence[float]]
"""Numbers by the place of the column they are compared with."""

_LESS_THAN_FLOAT32_TELLS = 2e-8
_ROWS_KEPT = ("_fit_X", "support_vectors_", "X_train_", "cluster_centers_", "theta_", "means_")
_MOST_ROWS = 500


def marks_of(model: Any, width: int) -> Marks:
    """What ``model`` compares its ``width`` columns with, as a client sends them: before what precedes it scales them.

    Those of a booster that compares in float32 come with doubles beside them that are the same float32.
    """
    if hasattr(model, "steps"):
        *before, last = [step for _, step in model.steps]
        marks = marks_of(last, getattr(last, "n_features_in_", 0))
        for step in reversed(before):
            marks = _before(step, marks)
        return marks
    return _merged([_own(model, width), *(marks_of(part, width) for part in parts_within(model))])


def parts_within(model: Any) -> Iterator[Any]:
    """The estimators that a model is made of, one level down; those in a pipeline's columns are not among them."""
    for name in (
        "steps",
        "transformer_list",
        "estimators_",
        "estimator_",
        "regressor_",
        "best_estimator_",
        "calibrated_classifiers_",
    ):
        yield from listed(getattr(model, name, None))
    if hasattr(model, "calibrators"):  # one of several that are calibrated
        yield model.estimator


def places_of(chosen: Any, names: Sequence[str]) -> list[int]:
    """The places of the columns that a transformer was given, however they were chosen."""
    if isinstance(chosen, str):
        return [names.index(chosen)]
    if isinstance(chosen, slice):
        start = names.index(chosen.start) if isinstance(chosen.start, str) else chosen.start
        stop = names.index(chosen.stop) + 1 if isinstance(chosen.stop, str) else chosen.stop  # a name is included
        return list(range(len(names)))[start:stop]
    listed = [chosen] if isinstance(chosen, int) else list(chosen)
    if listed and all(isinstance(one, bool | np.bool_) for one in listed):
        return [place for place, is_chosen in enumerate(listed) if is_chosen]
    return [names.index(one) if isinstance(one, str) else int(one) for one in listed]


def listed(found: Any) -> list[Any]:
    """The estimators in an attribute of another, which may hold one, several or a table of them, with names or without.

    Never by an array made of them: some estimators are sequences of others.
    """
    if found is None:
        return []
    items = found.ravel().tolist() if isinstance(found, np.ndarray) else found
    items = items if isinstance(items, list | tuple) else [items]
    return [item[1] if isinstance(item, tuple) else item for item in items if not isinstance(item, str)]


def _merged(several: Sequence[Marks]) -> Marks:
    found: dict[int, list[float]] = {}
    for marks in several:
        for place, values in marks.items():
            found.setdefault(place, []).extend(values)
    return found


# of an estimator itself


def _own(model: Any, width: int) -> Marks:
    tree = getattr(model, "tree_", None)
    if tree is not None and getattr(model, "n_features_in_", 0) == width:
        return _merged([{int(f): [float(t)]} for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0])
    if hasattr(model, "_predictors"):
        return _of_histograms(model)
    kind = type(model).__module__.split(".")[0]
    if kind == "lightgbm":
        return _of_lightgbm(model)
    if kind == "xgboost":
        marks, missing = _of_xgboost(model), getattr(model, "missing", None)
        if missing is None or not np.isfinite(missing):
            return marks
        return _merged([marks, {place: [missing] * (1 + len(marks.get(place, ())) // 10) for place in range(width)}])
    return _of_rows(model, width)


def _of_rows(model: Any, width: int) -> Marks:
    """Of rows that a model keeps of those it was fitted with, or means of them."""
    for name in _ROWS_KEPT:
        rows = getattr(model, name, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == width and rows.dtype.kind in "fi":
            some = rows[:: max(len(rows) // _MOST_ROWS, 1)]
            return {place: some[:, place].astype(float).tolist() for place in range(width)}
    return {}


def _of_histograms(model: Any) -> Marks:
    """Of scikit-learn's trees of histograms, by the thresholds of their numbers."""
    nodes = [one.nodes for trees in model._predictors for one in trees]
    return _merged(
        [
            {int(f): [float(t)]}
            for part in nodes
            for f, t, is_leaf, is_category in zip(
                part["feature_idx"], part["num_threshold"], part["is_leaf"], part["is_categorical"], strict=True
            )
            if not is_leaf and not is_category and np.isfinite(t)
        ]
    )


def booster_of(model: Any) -> Any:
    """The trees of an estimator of LightGBM or XGBoost, which may be alone."""
    return model.get_booster() if hasattr(model, "get_booster") else getattr(model, "booster_", model)


def _of_lightgbm(model: Any) -> Marks:
    booster = booster_of(model)
    frame, names = booster.trees_to_dataframe(), booster.feature_name()
    splits = frame[frame["threshold"].notna()]
    pairs = zip(splits["split_feature"], splits["threshold"], strict=True)
    return _merged([{names.index(f): [float(t)]} for f, t in pairs if isinstance(t, int | float)])


def _of_xgboost(model: Any) -> Marks:
    booster = booster_of(model)
    names = booster.feature_names or [f"f{place}" for place in range(booster.num_features())]
    trees = map(json.loads, booster.get_dump(dump_format="json"))
    return _merged(
        [
            {names.index(f): [t, t * (1 - _LESS_THAN_FLOAT32_TELLS), t * (1 + _LESS_THAN_FLOAT32_TELLS)]}
            for tree in trees
            for f, t in _splits(tree)
            if np.isfinite(t)
        ]
    )


def _splits(node: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Feature and threshold of every split by one, below a node of a tree's dump."""
    if isinstance(threshold := node.get("split_condition"), int | float):
        yield node["split"], float(threshold)
    for child in node.get("children", ()):
        yield from _splits(child)


# of what precedes an estimator


def _before(step: Any, marks: Marks) -> Marks:
    """What ``marks`` of a transformer's output are in its input, where a column comes of one; and its own."""
    if step is None or isinstance(step, str):
        return marks
    if hasattr(step, "steps"):
        for _, one in reversed(step.steps):
            marks = _before(one, marks)
        return marks
    if hasattr(step, "transformers_"):
        return _before_columns(step, marks)
    if hasattr(step, "transformer_list"):
        return _merged([_before(one, {}) for _, one in step.transformer_list])
    if hasattr(step, "statistics_"):
        return marks  # an imputer leaves what is there as it is
    return _pulled_back(step, marks, getattr(step, "n_features_in_", 0))


def _before_columns(step: Any, marks: Marks) -> Marks:
    """The same for a transformer of columns, each of whose parts makes some of the outputs."""
    names = list(getattr(step, "feature_names_in_", range(step.n_features_in_)))
    found: list[Marks] = []
    for name, one, chosen in step.transformers_:
        made = step.output_indices_.get(name, slice(0, 0))
        places = places_of(chosen, names)
        own = {place - made.start: values for place, values in marks.items() if made.start <= place < made.stop}
        found.append({places[at]: values for at, values in _before(one, own).items() if at < len(places)})
    return _merged(found)


def _pulled_back(step: Any, marks: Marks, width: int) -> Marks:
    """``marks``, -1, 0 and 1 by the inverse of a step that scales each column by itself; none where there is none."""
    if not hasattr(step, "inverse_transform") or hasattr(step, "categories_") or not width:
        return {}
    rows = 3 + max(map(len, marks.values()), default=0)
    scaled = [np.resize([-1.0, 0.0, 1.0, *marks.get(place, ())], rows) for place in range(width)]
    try:
        found = np.asarray(step.inverse_transform(np.stack(scaled, axis=1)), dtype=np.float64)
    except (ValueError, TypeError, NotImplementedError):
        return {}  # its outputs are not of its inputs one by one
    return {place: found[:, place].tolist() for place in range(width)} if found.shape[1:] == (width,) else {}
