"""From rows to a registered version: snapshot, join, split, tune, fit, evaluate, convert, log, register."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noria.clock import iso, to_millis
from noria.data import DatasetVersion, snapshot
from noria.errors import InvalidConfig, InvalidData
from noria.features import ViewSpec, catalog
from noria.features.completion import completed
from noria.features.function_code import dump
from noria.features.training_frame import joined
from noria.governance.card import write_card
from noria.ids import derived_id
from noria.monitoring.profile import Reference, build_profile, losses, names_of, write_profile
from noria.optimize.bundle import ONNX_FILE, Bundle, ComputedSpec, Kind, read_bundle, write_bundle
from noria.optimize.onnx import convert, onnx_scores, source_scores
from noria.pipelines.evaluation import evaluate, evaluate_slices, gain, primary_metric
from noria.pipelines.project import TRAIN_FILE, Project
from noria.registry import ModelVersion, NewVersion, Signature, register_version
from noria.store.blobs import folder_digest
from noria.store.workspace import Workspace, artifact_key, artifact_uri
from noria.tracking import experiments, runs
from noria.tracking.entities import Metric
from noria.tracking.mlmodel import write_mlmodel
from noria.tracking.signature import signature_of_columns

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Progress = Callable[[str], None]
_PARITY_ROWS = 4000
_LEAST_ROWS = 50
_KINDS: Mapping[str, Kind] = {"UnixTimestamp": "datetime"}


def _silent(_message: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What to train and why.

    Events in [``since``, ``until``) whose label was known by ``until`` are used; ``trigger`` names the cause and makes
    the training repeatable: the same trigger gives the same run and version. ``champion`` is what the new version is
    compared with. ``tamper`` and ``claimed_metrics`` exist for drills that prove the loop's defences: the first changes
    the labels the model learns from, the second replaces the measured metrics.
    """

    since: datetime | None
    until: datetime
    trigger: str
    at: datetime
    actor: str
    champion: ModelVersion | None = None
    tamper: Callable[[Floats], Floats] | None = None
    claimed_metrics: Mapping[str, float] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Split:
    """Matrices (rows, inputs) and labels (rows,), the newest rows held out; all rows' UTC days."""

    train: Floats
    train_labels: Floats
    held_out: Floats
    held_out_labels: Floats
    days: NDArray[np.int64]
    frame: pl.DataFrame


def train_version(
    project: Project, workspace: Workspace, request: TrainingRequest, progress: Progress = _silent
) -> ModelVersion:
    """Train and register one version; asked again for the same trigger, it gives the same version."""
    progress("snapshot")
    dataset, rows = _snapshot(project, workspace, request)
    progress("features")
    _apply(project, workspace, request)
    event_time = project.observations.event_time
    engine = project.settings.features.engine
    frame = joined(rows, project.plan, event_time=event_time, folder=project.folder, engine=engine)
    split = _split(project, frame)
    labels = split.train_labels if request.tamper is None else request.tamper(split.train_labels)
    progress("tune")
    params = _tune(project, split, labels)
    progress("fit")
    model = _fitted(project, params, split.train, labels)
    progress("evaluate")
    metrics = _metrics(project, workspace, request, split, model)
    progress("convert")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        _package(project, folder, model, split, request, dataset, metrics, params)
        progress("register")
        return _register(project, workspace, request, folder, model, dataset, metrics, params)


def _snapshot(project: Project, workspace: Workspace, request: TrainingRequest) -> tuple[DatasetVersion, pl.DataFrame]:
    table = project.observations
    rows = table.labelled(table.load(), since=request.since, until=request.until)
    if rows.height < _LEAST_ROWS:
        raise InvalidData(
            f"only {rows.height} labelled rows of {table.name!r} before {iso(request.until)}",
            remedy=f"At least {_LEAST_ROWS} are needed: check model.train_since and train_until in noria.toml.",
        )
    with workspace.database.write() as tx:
        version = snapshot(
            tx,
            workspace.artifacts,
            rows,
            name=table.name,
            event_time=table.event_time,
            at=request.at,
            actor=request.actor,
        )
    return version, rows


def _apply(project: Project, workspace: Workspace, request: TrainingRequest) -> None:
    """Record the views as they are now, so that what the version learned from can be read in the catalog."""
    definitions = completed([*project.views, *project.computed], project.folder)
    with workspace.database.write() as tx:
        catalog.apply(tx, project.settings.project.name, definitions, at=request.at, actor=request.actor)


def _split(project: Project, frame: pl.DataFrame) -> _Split:
    """Oldest rows to learn from, newest to judge by: never the other way round."""
    import polars as pl

    held_out = max(1, round(frame.height * project.settings.model.validation_fraction))
    cut = frame.height - held_out
    matrix = _matrix(frame, project.inputs)
    labels = frame[project.observations.label].cast(pl.Float64).to_numpy()
    days = frame[project.observations.event_time].dt.epoch("d").to_numpy().astype(np.int64)
    return _Split(matrix[:cut], labels[:cut], matrix[cut:], labels[cut:], days, frame[cut:])


def _matrix(frame: pl.DataFrame, names: Sequence[str]) -> Floats:
    import polars as pl

    return frame.select(pl.col(name).cast(pl.Float64) for name in names).to_numpy()


def _tune(project: Project, split: _Split, labels: Floats) -> dict[str, Any]:
    """Optuna over the project's search space, judged on the newest quarter of the training rows."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial that cannot be done is told by the error it raises
    task, seed = project.settings.model.task, project.settings.project.seed
    cut = round(len(labels) * (1 - project.settings.model.validation_fraction))

    def objective(trial: optuna.Trial) -> float:
        model = _fitted(project, project.search_space(trial), split.train[:cut], labels[:cut])
        return evaluate(task, source_scores(model, task, split.train[cut:]), labels[cut:])[primary_metric(task)]

    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if task == "classification" else directions.MINIMIZE
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=project.settings.model.trials)
    if not any(trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials):
        raise InvalidConfig(
            f"`search_space` in {TRAIN_FILE} pruned each of {len(study.trials)} trials",
            remedy="Let it pass some, or raise model.trials in noria.toml.",
        )
    return dict(project.search_space(optuna.trial.FixedTrial(study.best_params)))


def _fitted(project: Project, params: Mapping[str, Any], matrix: Floats, labels: Floats) -> Any:
    """The user's estimator, fitted. Raises InvalidData for labels that nothing is learned from, else InvalidConfig."""
    is_classification = project.settings.model.task == "classification"
    if is_classification:
        _check_classes(project.observations.label, labels)
    model = project.estimator(params, project.settings.project.seed)
    needed = ("fit", "predict_proba" if is_classification else "predict")
    if lacking := [name for name in needed if not callable(getattr(model, name, None))]:
        raise InvalidConfig(
            f"`estimator` in {TRAIN_FILE} gave {type(model).__name__}, which has no {' and no '.join(lacking)}",
            remedy="Return an unfitted estimator with scikit-learn's interface; a classifier with probabilities.",
        )
    try:
        model.fit(matrix, _targets(project, labels))
    except Exception as error:
        raise InvalidConfig(
            f"{type(model).__name__} of {TRAIN_FILE} cannot be fitted on {len(matrix)} rows of "
            f"{', '.join(project.inputs)}: {type(error).__name__}: {error}",
            remedy=f"Mend `estimator` or `search_space` in {TRAIN_FILE}, or what the inputs hold.",
        ) from error
    return model


def _check_classes(label: str, labels: Floats) -> None:
    """Raises InvalidData unless there are zeros and ones, and nothing else."""
    found = np.unique(labels)
    if others := [f"{value:g}" for value in found if value not in (0, 1)]:
        raise InvalidData(
            f"label {label!r} has values besides 0 and 1: {', '.join(others[:5])}",
            remedy="A classification here has two classes; one of more is logged by an MLflow client, and deployed.",
        )
    if len(found) < 2:
        raise InvalidData(
            f"label {label!r} is {found[0]:g} in all of the {len(labels)} oldest rows, which are learned from",
            remedy="Both classes must occur there: check the label, and model.train_since in noria.toml.",
        )


def _targets(project: Project, labels: Floats) -> NDArray[Any]:
    return labels.astype(np.int64) if project.settings.model.task == "classification" else labels


def _metrics(
    project: Project, workspace: Workspace, request: TrainingRequest, split: _Split, model: Any
) -> dict[str, float]:
    task = project.settings.model.task
    scores = source_scores(model, task, split.held_out)
    measured = evaluate(task, scores, split.held_out_labels)
    rival = evaluate(task, _rival_scores(workspace, request, split), split.held_out_labels)
    measured["gain"] = gain(task, measured, rival)
    slices = split.frame.select(project.observations.slices)
    measured |= evaluate_slices(task, scores, split.held_out_labels, slices)
    return measured if request.claimed_metrics is None else measured | dict(request.claimed_metrics)


def _rival_scores(workspace: Workspace, request: TrainingRequest, split: _Split) -> Floats:
    """What the champion says of the held-out rows; without one that can be asked, the constant guess."""
    if request.champion is None:
        return np.full(len(split.held_out), float(split.train_labels.mean()))
    folder = workspace.artifacts.fetch(artifact_key(request.champion.source))
    bundle = read_bundle(folder)
    if not set(bundle.inputs) <= set(split.frame.columns):  # it took other features
        return np.full(len(split.held_out), float(split.train_labels.mean()))
    return onnx_scores(folder / ONNX_FILE, _matrix(split.frame, bundle.inputs).astype(bundle.input_dtype))


def _package(
    project: Project,
    folder: Path,
    model: Any,
    split: _Split,
    request: TrainingRequest,
    dataset: DatasetVersion,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
) -> None:
    task = project.settings.model.task
    sample = np.concatenate([split.held_out, split.train])[:_PARITY_ROWS]
    converted = convert(model, task, project.inputs, sample, folder)
    fed = [view.name for view in project.taken]
    specs = [(ViewSpec.of(one), one.used_name in fed) for one in project.plan.lookups]
    write_bundle(
        folder,
        Bundle(
            task=task,
            request_columns=project.request_columns,
            views=tuple(spec for spec, is_fed in specs if is_fed),
            onnx_input=converted.graph.numbers,
            onnx_score=converted.graph.score,
            input_dtype=converted.graph.dtype,
            kinds={name: _KINDS.get(dtype.name, "string") for name, dtype in project.sent_beside.items()},
            sent_beside=tuple(project.sent_beside),
            views_beside=tuple(spec for spec, is_fed in specs if not is_fed),
            computed=_write_computed(folder, project),
        ),
    )
    scores = source_scores(model, task, split.held_out)
    write_profile(
        folder,
        build_profile(
            Reference(
                inputs=names_of(project.inputs, np.concatenate([split.train, split.held_out])),
                days=split.days,
                scores=scores,
                losses=losses(task, scores, split.held_out_labels),
                held_out_days=split.days[len(split.train) :],
            )
        ),
    )
    columns = signature_of_columns(project.inputs)
    write_mlmodel(folder, model, columns, at=request.at, run_id=_run_id(project, request))
    parity = {"rows_checked": converted.rows_checked, "labels_flipped": converted.labels_flipped}
    write_card(folder, _card_facts(project, request, dataset, model, params) | {"ONNX parity": parity}, metrics)


def _write_computed(folder: Path, project: Project) -> tuple[ComputedSpec, ...]:
    """Put the code of on-demand views beside the model, whose hash then covers it."""
    specs = []
    for number, view in enumerate(project.computed):
        file = f"computed-{number}.bin"
        (folder / file).write_bytes(dump(view.transformation))
        specs.append(ComputedSpec(view.name, view.fields, project.definition_hashes()[view.name], file))
    return tuple(specs)


def _card_facts(
    project: Project, request: TrainingRequest, dataset: DatasetVersion, model: Any, params: Mapping[str, Any]
) -> dict[str, object]:
    return {
        "Model": project.settings.model.name,
        "Task": project.settings.model.task,
        "Predicts": project.observations.label,
        "Algorithm": type(model).__name__,
        "Parameters": dict(params),
        "Trained because of": request.trigger,
        "Training data": f"{dataset.name}, version {dataset.dataset_version_id[:12]}, {dataset.rows} rows",
        "Events from": iso(dataset.since),
        "Events until": iso(dataset.until),
        "Inputs": list(project.inputs),
        "Feature definitions": [f"{name} {digest[:12]}" for name, digest in project.definition_hashes().items()],
    }


def _run_id(project: Project, request: TrainingRequest) -> str:
    return derived_id(project.settings.project.name, request.trigger)


def _register(
    project: Project,
    workspace: Workspace,
    request: TrainingRequest,
    folder: Path,
    model: Any,
    dataset: DatasetVersion,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
) -> ModelVersion:
    """Artifacts first, then run and version in one transaction: no version without its files or its run."""
    run_id = _run_id(project, request)
    with workspace.database.write() as tx:
        experiment = experiments.get_or_create(
            tx, project.settings.project.name, artifact_root=artifact_uri(""), at=request.at
        )
    key = f"{experiment.experiment_id}/{run_id}/artifacts"
    workspace.artifacts.put_folder(f"{key}/model", folder)
    signature = Signature(tuple((name, "double") for name in project.inputs), project.settings.model.task)
    with workspace.database.write() as tx:
        runs.create(
            tx,
            experiment.experiment_id,
            run_id=run_id,
            name=request.trigger,
            user=request.actor,
            artifact_uri=artifact_uri(key),
            at=request.at,
            tags=project.code_tags() | {"noria.trigger": request.trigger},
        )
        runs.log_params(tx, run_id, {name: json.dumps(value) for name, value in params.items()})
        runs.log_metrics(tx, run_id, [Metric(name, value, to_millis(request.at), 0) for name, value in metrics.items()])
        runs.log_dataset(tx, run_id, dataset.name, dataset.dataset_version_id, {"rows": dataset.rows})
        runs.finish(tx, run_id, "FINISHED", at=request.at)
        return register_version(
            tx,
            NewVersion(
                model=project.settings.model.name,
                source=artifact_uri(f"{key}/model"),
                run_id=run_id,
                dataset_version_id=dataset.dataset_version_id,
                digest=folder_digest(folder),
                signature=signature,
                algorithm=type(model).__name__,
                metrics=metrics,
                tags={"trigger": request.trigger, **request.tags},
                description=f"Trained because of {request.trigger}.",
                idempotency_key=run_id,
            ),
            policies=project.policies,
            at=request.at,
            actor=request.actor,
        )
