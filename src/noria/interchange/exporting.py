"""From a Noria project to a live MLflow server, over its REST protocol.

MLflow gives runs and logged models ids of its own, so each carries ``noria.run_id`` or ``noria.model_id`` from the call
on that makes it, and ``noria.exported`` once it is whole: an export that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from noria.clock import to_millis
from noria.errors import NoriaError, Unavailable
from noria.interchange.artifacts import MlflowArtifacts
from noria.interchange.mlflow_server import MlflowServer
from noria.interchange.project import NoriaProject
from noria.interchange.report import Hash, Progress, Report, View, compare
from noria.interchange.rest import RestClient
from noria.interchange.side import EXPORTED, MODEL_ID, RUN_ID, VERSION, Side
from noria.registry import ModelVersion, RegisteredModel, Stage
from noria.store.workspace import Workspace
from noria.tracking.entities import Experiment, LoggedModel, Metric, Run
from noria.tracking.experiments import ACTIVE, DELETED

_EXPORTED_FROM = "noria.exported_from"
_PLACEHOLDER = "noria.placeholder"
_METRICS_AT_ONCE, _PAIRS_AT_ONCE = 1000, 100
_LINKS = "mlflow.modelVersions"
_PENDING = "LOGGED_MODEL_PENDING"


def export_mlflow(workspace: Workspace, target: MlflowServer, *, project: str, progress: Progress) -> Report:
    """Write everything of the project that the server does not have yet, then compare both.

    ``project`` is the name the registered models are marked with; one of that name without the mark is left alone and
    listed as refused. Raises Unavailable when the server goes away.
    """
    here = NoriaProject(workspace)
    moving = _Export(
        here, target, target.client, target.artifacts, project, Report(here.name, target.name), {}, {}, {}, {}
    )
    there = {experiment.name: experiment for experiment in target.experiments()}
    found = here.experiments()
    for number, experiment in enumerate(found):
        progress(f"experiment {experiment.name}", number, len(found))
        moving.experiment(experiment, there.get(experiment.name), partial(progress, done=number, of=len(found)))
    known = {model.name: model for model in target.models()}
    models = here.models()
    for number, model in enumerate(models):
        progress(f"model {model.name}", number, len(models))
        moving.attempt(partial(moving.model, model, known.get(model.name)), f"model {model.name}")
    moving.restore_links()
    compare(moving.report, moving.source_view(), moving.target_view(), progress)
    return moving.report


@dataclass(frozen=True, slots=True)
class _Export:
    here: NoriaProject
    there: MlflowServer
    client: RestClient
    artifacts: MlflowArtifacts
    project: str
    report: Report
    runs: dict[str, Run]
    """Run id here → the run there."""
    models: dict[str, LoggedModel]
    """Logged model id here → the logged model there."""
    roots: dict[str, tuple[str, str, str]]
    """Root here → (root there, its run's id there, its logged model's id there)."""
    links: dict[str, str]
    """Logged model id there → the tag in which MLflow keeps its versions, as it was."""

    def experiment(self, experiment: Experiment, known: Experiment | None, tell: Callable[[str], None]) -> None:
        """Write the experiment with its logged models and runs; one that is deleted here is deleted there, last."""
        experiment_id = self._open_experiment(experiment, known)
        place = self._experiment(experiment_id)
        arrived = {run.tags[RUN_ID]: run for run in self.there.runs(place) if RUN_ID in run.tags}
        made = {model.tags[MODEL_ID]: model for model in self.there.logged_models(place) if MODEL_ID in model.tags}
        models = self.here.logged_models(experiment)
        for number, run in enumerate(self.here.runs(experiment), start=1):
            self.attempt(partial(self._make_run, run, experiment_id, arrived.get(run.run_id)), f"run {run.run_id}")
            tell(f"experiment {experiment.name}: {number} runs")
        for model in models:
            step = partial(self._logged_model, model, experiment_id, made.get(model.model_id))
            self.attempt(step, f"logged model {model.model_id}")
        for run in self.here.runs(experiment):
            if run.run_id in self.runs:
                self.attempt(partial(self._close_run, run, self.runs[run.run_id]), f"run {run.run_id}")
        if experiment.lifecycle_stage == DELETED and self._experiment(experiment_id).lifecycle_stage == ACTIVE:
            self.client.send("POST", "/experiments/delete", {"experiment_id": experiment_id})

    def model(self, model: RegisteredModel, known: RegisteredModel | None) -> None:
        """Write the registered model, its versions with their numbers and stages, and its aliases."""
        if known is not None and known.tags.get(_EXPORTED_FROM) != self.project:
            self.report.refused.append(
                f"model {model.name!r} exists already at {self.there.name} and did not come from {self.project}; "
                "rename one of the two"
            )
            return
        if known is None:
            tags = _pairs({**model.tags, _EXPORTED_FROM: self.project})
            body = {"name": model.name, "description": model.description, "tags": tags}
            self.client.send("POST", "/registered-models/create", body, again=False)
        self._count("models", known is None)
        there = {version.version: version for version in self.there.versions(model.name)}
        for version in self.here.versions(model.name):
            self._version(version, there)
        for number, version in there.items():
            if _PLACEHOLDER in version.tags:
                self.client.send("DELETE", "/model-versions/delete", {"name": model.name, "version": str(number)})
        pointing = self.there.aliases(model.name)
        for alias, number in self.here.aliases(model.name).items():
            if pointing.get(alias) != number:
                body = {"name": model.name, "alias": alias, "version": str(number)}
                self.client.send("POST", "/registered-models/alias", body)

    def restore_links(self) -> None:
        """Set the tag of logged models that the server itself changed while their versions were made."""
        for model_id, value in self.links.items():
            body = {"model_id": model_id, "tags": _pairs({_LINKS: value})}
            self.client.send("PATCH", f"/logged-models/{model_id}/tags", body)

    def source_view(self) -> View:
        """All of the project."""
        return View(
            self.here,
            lambda run: run.run_id,
            lambda model: model.model_id,
            lambda _: True,
            lambda _, uri: _hashes(self.here, uri),
        )

    def target_view(self) -> View:
        """What this project's exports made at the server."""
        return View(
            self.there,
            lambda run: run.tags.get(RUN_ID),
            lambda model: model.tags.get(MODEL_ID),
            lambda version: VERSION in version.tags,
            lambda _, uri: _hashes(self.there, uri),
        )

    def attempt(self, step: Callable[[], None], what: str) -> None:
        """Do a step; what the server refuses is listed, but a server that is gone ends the export."""
        try:
            step()
        except Unavailable:
            raise
        except (NoriaError, OSError) as error:
            self.report.refused.append(f"{what}: {error.message if isinstance(error, NoriaError) else error}")

    def _count(self, what: str, new: bool) -> None:
        self.report.count(what, new=new)

    def _open_experiment(self, experiment: Experiment, known: Experiment | None) -> str:
        """The id there of an experiment that can be written to."""
        self._count("experiments", known is None)
        if known is None:
            body = {"name": experiment.name, "tags": _pairs(experiment.tags)}
            return str(self.client.send("POST", "/experiments/create", body, again=False)["experiment_id"])
        if known.lifecycle_stage == DELETED and not self._whole(experiment, known):
            self.client.send("POST", "/experiments/restore", {"experiment_id": known.experiment_id})
        for key, value in experiment.tags.items():
            if known.lifecycle_stage == ACTIVE and known.tags.get(key) != value:
                body = {"experiment_id": known.experiment_id, "key": key, "value": value}
                self.client.send("POST", "/experiments/set-experiment-tag", body)
        return known.experiment_id

    def _whole(self, experiment: Experiment, known: Experiment) -> bool:
        """Whether all runs of an experiment that is deleted there arrived, so that it need not be restored."""
        arrived = {run.tags.get(RUN_ID) for run in self.there.runs(known) if EXPORTED in run.tags}
        return all(run.run_id in arrived for run in self.here.runs(experiment))

    def _experiment(self, experiment_id: str) -> Experiment:
        return next(e for e in self.there.experiments() if e.experiment_id == experiment_id)

    def _make_run(self, run: Run, experiment_id: str, known: Run | None) -> None:
        """Write all of a run but its end: a logged model of it can only be written while it goes on."""
        if known is None:
            body: dict[str, object] = {
                "experiment_id": experiment_id,
                "user_id": run.user,
                "run_name": run.name,
                "start_time": to_millis(run.started_at),
                "tags": _pairs({RUN_ID: run.run_id, **_first(run.tags)}),
            }
            made = self.client.send("POST", "/runs/create", body, again=False)["run"]
            known = self.there.run(made["info"]["run_id"])
        self.runs[run.run_id] = known
        self.roots[run.artifact_uri.rstrip("/")] = known.artifact_uri, known.run_id, ""
        self._count("runs", EXPORTED not in known.tags)
        if EXPORTED in known.tags:
            return
        if known.lifecycle_stage == DELETED:  # with its experiment, by an export that was then killed
            self.client.send("POST", "/runs/restore", {"run_id": known.run_id})
        self._log(run, known.run_id)
        self._upload(run.artifact_uri, known.artifact_uri)

    def _log(self, run: Run, run_id: str) -> None:
        """Params, tags, metrics and datasets; to send one of them again does no harm."""
        for kind, pairs in (("params", run.params), ("tags", run.tags)):
            for some in _slices(_pairs(pairs), _PAIRS_AT_ONCE):
                self.client.send("POST", "/runs/log-batch", {"run_id": run_id, kind: some})
        points = [_point(metric) for metric in self.here.history(run)]
        for some in _slices(points, _METRICS_AT_ONCE):
            self.client.send("POST", "/runs/log-batch", {"run_id": run_id, "metrics": some})
        if run.datasets:
            body = {"run_id": run_id, "datasets": [_dataset(entry) for entry in run.datasets]}
            self.client.send("POST", "/runs/log-inputs", body)

    def _close_run(self, run: Run, known: Run) -> None:
        """Say which logged models the run made, end it, mark it as whole, and delete it if it is deleted here."""
        if EXPORTED not in known.tags:
            outputs = [(self.models[model].model_id, step) for model, step in run.model_outputs if model in self.models]
            if outputs:
                models = [{"model_id": model, "step": step} for model, step in outputs]
                self.client.send("POST", "/runs/outputs", {"run_id": known.run_id, "models": models})
            body: dict[str, object] = {"run_id": known.run_id, "status": run.status}
            if run.ended_at is not None:
                body["end_time"] = to_millis(run.ended_at)
            self.client.send("POST", "/runs/update", body)
            self.client.send("POST", "/runs/set-tag", {"run_id": known.run_id, "key": EXPORTED, "value": "whole"})
        if run.lifecycle_stage == DELETED and (EXPORTED not in known.tags or known.lifecycle_stage == ACTIVE):
            self.client.send("POST", "/runs/delete", {"run_id": known.run_id})

    def _logged_model(self, model: LoggedModel, experiment_id: str, known: LoggedModel | None) -> None:
        run = self.runs.get(model.source_run_id or "")
        if known is None:
            body: dict[str, object] = {
                "experiment_id": experiment_id,
                "name": model.name,
                "model_type": model.model_type,
                "params": _pairs(model.params),
                "tags": _pairs({MODEL_ID: model.model_id, **model.tags}),
                **({} if run is None else {"source_run_id": run.run_id}),
            }
            made = self.client.send("POST", "/logged-models", body, again=False)["model"]
            known = self.there.logged_model(made["info"]["model_id"])
        self.models[model.model_id] = known
        if _LINKS in model.tags:
            self.links[known.model_id] = model.tags[_LINKS]
        self.roots[model.artifact_uri.rstrip("/")] = known.artifact_uri, "", known.model_id
        self._count("logged_models", EXPORTED not in known.tags)
        if EXPORTED in known.tags:
            return
        self._upload(model.artifact_uri, known.artifact_uri)
        path = f"/logged-models/{known.model_id}"
        if model.status != _PENDING:
            self.client.send("PATCH", path, {"model_id": known.model_id, "status": model.status})
        tag = {"model_id": known.model_id, "tags": _pairs({EXPORTED: "whole"})}
        self.client.send("PATCH", f"{path}/tags", tag)

    def _version(self, version: ModelVersion, there: dict[int, ModelVersion]) -> None:
        """The version under its own number: numbers that are free here are taken there for the time being."""
        known = there.get(version.version)
        if known is None:
            while max(there, default=0) + 1 < version.version:
                self._create_version(version, {_PLACEHOLDER: "yes"}, there)
            known = self._create_version(version, {VERSION: str(version.version), **version.tags}, there)
            self._count("versions", True)
        elif known.tags.get(VERSION) != str(version.version):
            self.report.refused.append(f"version {version.label} exists already at {self.there.name}")
            return
        else:
            self._count("versions", False)
        if known.stage is Stage.NONE and version.stage is not Stage.NONE:
            move = {"name": version.model, "version": str(version.version), "stage": version.stage.value}
            self.client.send("POST", "/model-versions/transition-stage", {**move, "archive_existing_versions": False})

    def _create_version(
        self, version: ModelVersion, tags: Mapping[str, str], there: dict[int, ModelVersion]
    ) -> ModelVersion:
        source, run_id, model_id = self._version_source(version)
        body: dict[str, object] = {
            "name": version.model,
            "source": source,
            "description": version.description,
            "tags": _pairs(tags),
            **({"run_id": run_id} if run_id else {}),
            **({"model_id": model_id} if model_id else {}),
        }
        made = self.there.made_version(self.client.send("POST", "/model-versions/create", body, again=False))
        there[made.version] = made
        return made

    def _version_source(self, version: ModelVersion) -> tuple[str, str, str]:
        """Source, run id and logged model id there."""
        root, path = version.source.rstrip("/"), ""
        run = self.runs.get(version.run_id or "")
        while "/" in root:
            if root in self.roots:
                uri, run_id, model_id = self.roots[root]
                return f"{uri}/{path}".rstrip("/"), run_id or (run.run_id if run else ""), model_id
            root, _, last = root.rpartition("/")
            path = f"{last}/{path}".rstrip("/")
        return version.source, run.run_id if run else "", ""

    def _upload(self, source: str, target: str) -> None:
        """Write the files below ``source``; those out of reach are told by the comparison."""
        try:
            files = self.here.files(source)
        except Unavailable:
            return
        for file in files:
            self.artifacts.write(target, file.path, self.here.read(source, file.path))
        self.report.count("files", len(files), new=True)


def _first(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that a run is made with; the others follow in batches."""
    return dict(list(tags.items())[: _PAIRS_AT_ONCE // 2])


def _pairs(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def _slices(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _point(metric: Metric) -> dict[str, object]:
    value: object = "NaN" if metric.value != metric.value else metric.value
    return {"key": metric.key, "value": value, "timestamp": metric.timestamp_millis, "step": metric.step}


def _dataset(entry: Mapping[str, object]) -> dict[str, object]:
    plain = {"name": entry["name"], "digest": entry["digest"], "source_type": "noria", "source": "{}"}
    return {"dataset": entry.get("dataset", plain), "tags": entry.get("tags", [])}


def _hashes(side: Side, uri: str) -> list[Hash]:
    found = ((file, side.read(uri, file.path)) for file in side.files(uri))
    return [(file.path, len(content), hashlib.sha256(content).hexdigest()) for file, content in found]
