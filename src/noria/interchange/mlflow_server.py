"""A live MLflow server, read over its REST protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from noria.clock import from_millis
from noria.errors import InvalidInput, NotFound
from noria.ids import ExperimentId, RunId
from noria.interchange.artifacts import MlflowArtifacts
from noria.interchange.rest import Json, RestClient
from noria.interchange.side import File
from noria.registry import ModelVersion, RegisteredModel, Signature
from noria.registry.stages import parse_stage
from noria.tracking.entities import Experiment, LoggedModel, Metric, Run

_ALL = {"max_results": 1000, "view_type": "ALL"}
_HISTORY_PAGE = 25_000
_IS_PROMPT = "tags.`mlflow.prompt.is_prompt` = 'true'"


class MlflowServer:
    """One end of a move. Registered models include prompts, which MLflow keeps beside them."""

    def __init__(self, url: str, *, artifacts: Path | None = None) -> None:
        self.client = RestClient(url)
        self.name = self.client.url
        self.artifacts = MlflowArtifacts(proxy=self.client, folder=artifacts)
        self._aliases: dict[str, dict[str, int]] = {}
        self._model_roots: dict[str, str] = {}

    def experiments(self) -> Sequence[Experiment]:
        """All experiments, oldest first."""
        found = self.client.pages("POST", "/experiments/search", "experiments", **_ALL)
        return sorted(map(_experiment, found), key=lambda experiment: int(experiment.experiment_id))

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        """All runs of the experiment, oldest first."""
        arguments = {
            "experiment_ids": [experiment.experiment_id],
            "run_view_type": "ALL",
            "max_results": 1000,
            "order_by": ["attributes.start_time ASC"],
        }
        for item in self.client.pages("POST", "/runs/search", "runs", **arguments):
            yield _run(item)

    def history(self, run: Run) -> Sequence[Metric]:
        """Every value of every metric, key by key."""
        arguments = {"run_id": run.run_id, "max_results": _HISTORY_PAGE}
        return [
            _metric(item)
            for key in sorted(run.metrics)
            for item in self.client.pages("GET", "/metrics/get-history", "metrics", metric_key=key, **arguments)
        ]

    def logged_models(self, experiment: Experiment) -> Sequence[LoggedModel]:
        """The logged models; none on a server older than MLflow 3."""
        arguments = {"experiment_ids": [experiment.experiment_id], "max_results": 50}
        try:
            items = list(self.client.pages("POST", "/logged-models/search", "models", **arguments))
        except NotFound:
            return []
        found = [_logged_model(item) for item in items]
        self._model_roots |= {model.model_id: model.artifact_uri for model in found}
        return found

    def run(self, run_id: str) -> Run:
        """One run."""
        return _run(self.client.get("/runs/get", run_id=run_id)["run"])

    def logged_model(self, model_id: str) -> LoggedModel:
        """One logged model."""
        model = _logged_model(self.client.get(f"/logged-models/{model_id}")["model"])
        self._model_roots[model_id] = model.artifact_uri
        return model

    def made_version(self, answer: Json) -> ModelVersion:
        """The version that a call which made it answered with."""
        return self._version(answer["model_version"])

    def models(self) -> Sequence[RegisteredModel]:
        """All registered models and prompts by name."""
        found = {item["name"]: item for item in self._search("/registered-models/search", "registered_models", "")}
        for name, item in found.items():
            self._aliases[name] = {a["alias"]: int(a["version"]) for a in item.get("aliases", ())}
        return [
            RegisteredModel(
                name,
                found[name].get("description", ""),
                _pairs(found[name].get("tags", ())),
                from_millis(int(found[name].get("creation_timestamp", 0))),
                from_millis(int(found[name].get("last_updated_timestamp", 0))),
            )
            for name in sorted(found)
        ]

    def aliases(self, model: str) -> Mapping[str, int]:
        """As they came with the model."""
        return self._aliases.get(model, {})

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """The versions by number."""
        quote = '"' if "'" in model else "'"
        found = self._search("/model-versions/search", "model_versions", f"name = {quote}{model}{quote}")
        return sorted((self._version(item) for item in found), key=lambda version: version.version)

    def files(self, uri: str) -> Sequence[File]:
        """The files below ``uri``. Raises Unavailable when they cannot be reached from here."""
        return self.artifacts.files(uri)

    def read(self, uri: str, path: str) -> bytes:
        """One file below ``uri``."""
        return self.artifacts.read(uri, path)

    def _search(self, path: str, field: str, condition: str) -> list[Json]:
        """What the registry holds: first what are no prompts, then those, which a search leaves out unless asked."""
        found = list(self.client.pages("GET", path, field, max_results=1000, filter=condition))
        prompts = f"{condition} AND {_IS_PROMPT}" if condition else _IS_PROMPT
        try:
            found += self.client.pages("GET", path, field, max_results=1000, filter=prompts)
        except InvalidInput:  # a server from before there were prompts may not read this condition
            return found
        return list({(item["name"], item.get("version")): item for item in found}.values())

    def _version(self, item: Json) -> ModelVersion:
        version = _plain_version(item)
        place = self._place(version)
        return version if place == version.source else replace(version, source=place, named_source=version.source)

    def _place(self, version: ModelVersion) -> str:
        """Where the files lie when the source names another version, a logged model or a run."""
        place = version.source
        if place.startswith("models:/") and not place.startswith("models:/m-"):
            asked = {"name": version.model, "version": str(version.version)}
            place = str(self.client.get("/model-versions/get-download-uri", **asked)["artifact_uri"])
        if place.startswith("models:/m-"):
            return self._model_roots.get(place.removeprefix("models:/"), place)
        if place.startswith("runs:/"):
            run_id, _, path = place.removeprefix("runs:/").partition("/")
            return f"{self.run(run_id).artifact_uri}/{path}"
        return place


def _experiment(item: Json) -> Experiment:
    """An experiment of the wire."""
    return Experiment(
        ExperimentId(item["experiment_id"]),
        item["name"],
        item.get("artifact_location", ""),
        item.get("lifecycle_stage", "active"),
        _pairs(item.get("tags", ())),
        from_millis(int(item.get("creation_time", 0))),
        from_millis(int(item.get("last_update_time", 0))),
    )


def _run(item: Json) -> Run:
    """A run of the wire."""
    info, data = item["info"], item.get("data", {})
    tags = _pairs(data.get("tags", ()))
    end = int(info.get("end_time", 0))
    return Run(
        RunId(info["run_id"]),
        ExperimentId(info["experiment_id"]),
        info.get("run_name") or tags.get("mlflow.runName", ""),
        info.get("user_id", ""),
        info["status"],
        info.get("lifecycle_stage", "active"),
        from_millis(int(info.get("start_time", 0))),
        from_millis(end) if end else None,
        info.get("artifact_uri", ""),
        _pairs(data.get("params", ())),
        tags,
        {metric["key"]: _metric(metric) for metric in data.get("metrics", ())},
        [
            {
                "name": entry["dataset"]["name"],
                "digest": entry["dataset"]["digest"],
                "tags": list(entry.get("tags", ())),
                "dataset": dict(entry["dataset"]),
            }
            for entry in item.get("inputs", {}).get("dataset_inputs", ())
        ],
        [(entry["model_id"], int(entry.get("step", 0))) for entry in item.get("outputs", {}).get("model_outputs", ())],
    )


def _plain_version(item: Json) -> ModelVersion:
    """A model version of the wire."""
    return ModelVersion(
        model=item["name"],
        version=int(item["version"]),
        semantic_version="",
        stage=parse_stage(item.get("current_stage") or "None"),
        status=item.get("status", "READY"),
        source=item.get("source", ""),
        run_id=item.get("run_id") or None,
        logged_model_id=item.get("model_id") or None,
        dataset_version_id=None,
        digest="",
        signature=Signature(),
        algorithm="",
        metrics={},
        tags=_pairs(item.get("tags", ())),
        description=item.get("description", ""),
        created_by=item.get("user_id", ""),
        created_at=from_millis(int(item.get("creation_timestamp", 0))),
        updated_at=from_millis(int(item.get("last_updated_timestamp", 0))),
    )


def _logged_model(item: Json) -> LoggedModel:
    info, data = item["info"], item.get("data", {})
    return LoggedModel(
        info["model_id"],
        ExperimentId(info["experiment_id"]),
        info.get("name", ""),
        RunId(info["source_run_id"]) if info.get("source_run_id") else None,
        info.get("artifact_uri", ""),
        info.get("status", "LOGGED_MODEL_READY"),
        info.get("model_type", ""),
        _pairs(data.get("params", ())),
        _pairs(info.get("tags", ())),
        from_millis(int(info.get("creation_timestamp_ms", 0))),
        from_millis(int(info.get("last_updated_timestamp_ms", 0))),
    )


def _metric(item: Json) -> Metric:
    return Metric(item["key"], float(item["value"]), int(item.get("timestamp", 0)), int(item.get("step", 0)))


def _pairs(items: Sequence[Any]) -> dict[str, str]:
    return {item["key"]: str(item.get("value", "")) for item in items}
