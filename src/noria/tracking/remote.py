"""The backend over HTTP: MLflow's REST protocol, as Noria and MLflow servers speak it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from noria.clock import from_millis
from noria.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from noria.ids import ExperimentId, RunId
from noria.tracking.backend import Backend, Dataset, FileEntry, RegisteredVersion
from noria.tracking.entities import LoggedModel, Metric, Run
from noria.tracking.transport import Transport

T = TypeVar("T")
Json = Mapping[str, Any]
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_ARTIFACT_SCHEME = "mlflow-artifacts"
_METRICS_A_BATCH = 1000
_PAIRS_A_BATCH = 100
"""What MLflow servers accept in one batch; more is sent in several."""
_PAGE = 1000


def open_backend(uri: str) -> Backend:
    """The server at that address; nothing is asked of it yet."""
    return HttpBackend(uri)


class HttpBackend:
    """A server. What creates something is not repeated once it may have arrived; everything else is."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._transport = Transport(uri)

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made when it is new. Raises Conflict for a deleted one."""
        try:
            found = self._get("/experiments/get-by-name", experiment_name=name)["experiment"]
        except NotFound:
            try:
                return str(self._create("/experiments/create", name=name)["experiment_id"])
            except AlreadyExists:  # another client was faster
                found = self._get("/experiments/get-by-name", experiment_name=name)["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            raise Conflict(f"experiment {name!r} is deleted", remedy="Restore it, or choose another name.")
        return str(found["experiment_id"])

    def create_run(self, experiment_id: str, *, name: str, user: str, tags: Mapping[str, str]) -> Run:
        """A new run, started now by the server's clock."""
        made = self._create(
            "/runs/create",
            experiment_id=experiment_id,
            run_name=name,
            user_id=user,
            tags=_as_pairs(tags),
            start_time=_now(),
        )
        return _run(made["run"])

    def set_status(self, run_id: str, status: str) -> Run:
        """Set the status; a terminal one ends the run now."""
        ended = {} if status in ("RUNNING", "SCHEDULED") else {"end_time": _now()}
        self._post("/runs/update", run_id=run_id, status=status, **ended)
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> Run:
        """The run of that id."""
        return _run(self._get("/runs/get", run_id=run_id)["run"])

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        at_millis: int = 0,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run, in one batch unless there is more than MLflow servers take in one."""
        values = [
            {"key": key, "value": value, "timestamp": at_millis or _now(), "step": step}
            for key, value in (metrics or {}).items()
        ]
        several = zip(
            _batches(values, _METRICS_A_BATCH),
            _batches(_as_pairs(params or {}), _PAIRS_A_BATCH),
            _batches(_as_pairs(tags or {}), _PAIRS_A_BATCH),
            strict=False,
        )
        for some_metrics, some_params, some_tags in several:
            if not (some_metrics or some_params or some_tags):
                return
            self._post("/runs/log-batch", run_id=run_id, metrics=some_metrics, params=some_params, tags=some_tags)

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Record a table that the run read."""
        self._post("/runs/log-inputs", run_id=run_id, datasets=[dataset.document()])

    def search_runs(
        self, experiment_ids: Sequence[str], *, filter_text: str, order_by: Sequence[str], limit: int
    ) -> list[Run]:
        """At most ``limit`` active runs that meet the filter."""
        asked = {"experiment_ids": list(experiment_ids), "filter": filter_text, "order_by": list(order_by)}
        found = self._pages("POST", "/runs/search", "runs", {**asked, "max_results": min(limit, _PAGE)})
        return [_run(document) for document in islice(found, limit)]

    def metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every value of one metric, by step and time."""
        found = self._pages("GET", "/metrics/get-history", "metrics", {"run_id": run_id, "metric_key": key})
        history = [_metric(document) for document in found]
        return sorted(history, key=lambda metric: (metric.step, metric.timestamp_millis))

    def list_files(self, uri: str) -> list[FileEntry]:
        """The entries of the folder at an artifact address, by name."""
        answer = self._transport.call("GET", _ARTIFACTS, {"path": _key(uri)})
        entries = [
            FileEntry(PurePosixPath(file["path"]).name, bool(file.get("is_dir")), int(file.get("file_size") or 0))
            for file in answer.get("files", [])
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def put_file(self, uri: str, content: bytes | Path) -> None:
        """Store bytes, or the file at a path, under an artifact address."""
        self._transport.upload(f"{_ARTIFACTS}/{_key(uri)}", content)

    def get_file(self, uri: str, target: Path) -> None:
        """Write the artifact into the file ``target``."""
        self._transport.download(f"{_ARTIFACTS}/{_key(uri)}", target)

    def create_logged_model(self, experiment_id: str, *, name: str, run_id: str) -> LoggedModel:
        """Announce a model whose files follow."""
        made = self._create("/logged-models", experiment_id=experiment_id, name=name, source_run_id=run_id)
        return _logged_model(made["model"])

    def finish_logged_model(self, model_id: str, run_id: str) -> None:
        """Its files are complete: it is ready, and an output of the run."""
        body = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
        self._transport.call("PATCH", f"{_API}/logged-models/{model_id}", body)
        self._post("/runs/outputs", run_id=run_id, models=[{"model_id": model_id, "step": 0}])

    def get_logged_model(self, model_id: str) -> LoggedModel:
        """The logged model of that id."""
        return _logged_model(self._get(f"/logged-models/{model_id}")["model"])

    def register(
        self, name: str, source: str, *, run_id: str | None, logged_model_id: str | None, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """Add a version to the model, making the model when it is new."""
        try:
            self._get("/registered-models/get", name=name)
        except NotFound:
            with contextlib.suppress(AlreadyExists):  # another client was faster
                self._create("/registered-models/create", name=name)
        ids = {"run_id": run_id or "", "model_id": logged_model_id or ""}
        made = self._create("/model-versions/create", name=name, source=source, tags=_as_pairs(tags), **ids)
        return _version(made["model_version"])

    def find_version(self, name: str, which: str) -> RegisteredVersion:
        """The version that ``3``, ``Production``, ``@alias`` or ``latest`` names."""
        if which.startswith("@"):
            return _version(self._get("/registered-models/alias", name=name, alias=which[1:])["model_version"])
        if which.isdecimal():
            return _version(self._get("/model-versions/get", name=name, version=which)["model_version"])
        stages = {} if which.lower() == "latest" else {"stages": [which]}
        answer = self._post("/registered-models/get-latest-versions", name=name, **stages)
        found = [_version(document) for document in answer.get("model_versions", [])]
        if not found:
            raise NotFound(f"model {name!r} has no version in {which}", remedy="Move one there, or name its number.")
        return max(found, key=lambda version: version.version)

    def transition_stage(self, name: str, version: int, stage: str, reason: str) -> RegisteredVersion:
        """Move a version under the server's policy; on an MLflow server, which has none, the reason is lost."""
        body = {"name": name, "version": str(version), "stage": stage, "reason": reason}
        replaces = stage.lower() == "production"  # as Noria does by itself: a model has one version there
        moved = self._post("/model-versions/transition-stage", **body, archive_existing_versions=replaces)
        return _version(moved["model_version"])

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point the alias at the version."""
        self._post("/registered-models/alias", name=name, alias=alias, version=str(version))

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Add or replace a tag of a version."""
        self._post("/model-versions/set-tag", name=name, version=str(version), key=key, value=value)

    def close(self) -> None:
        """Close the idle connections."""
        self._transport.close()

    def _get(self, path: str, **arguments: Any) -> Json:
        return self._transport.call("GET", _API + path, arguments)

    def _post(self, path: str, **arguments: Any) -> Json:
        return self._transport.call("POST", _API + path, arguments)

    def _create(self, path: str, **arguments: Any) -> Json:
        return self._transport.call("POST", _API + path, arguments, repeatable=False)

    def _pages(self, method: str, path: str, name: str, arguments: Json) -> Iterator[Json]:
        """The entries called ``name`` of every page."""
        token = ""
        while True:
            asked = {**arguments, "page_token": token} if token else arguments
            answer = self._transport.call(method, _API + path, asked)
            yield from answer.get(name, [])
            token = answer.get("next_page_token", "")
            if not token:
                return


# wire shapes


def _now() -> int:
    return round(time.time() * 1000)


def _key(uri: str) -> str:
    """The path below the server's artifact root. Raises InvalidInput for artifacts it does not hand out itself."""
    parts = urlsplit(uri)
    if parts.scheme != _ARTIFACT_SCHEME:
        raise InvalidInput(
            f"{uri!r} lies outside of the tracking server", remedy="Start the MLflow server with --serve-artifacts."
        )
    return parts.path.lstrip("/")


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of ``size``, then empty lists for ever."""
    for start in count(step=size):
        yield items[start : start + size]


def _as_pairs(mapping: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _pairs(items: Sequence[Json] | None) -> dict[str, str]:
    return {item["key"]: item.get("value", "") for item in items or ()}


def _metric(document: Json) -> Metric:
    step, at = int(document.get("step", 0)), int(document.get("timestamp", 0))
    return Metric(document["key"], float(document.get("value", 0.0)), at, step)


def _run(document: Json) -> Run:
    info, data = document["info"], document.get("data", {})
    metrics = [_metric(item) for item in data.get("metrics", [])]
    ended = int(info.get("end_time") or 0)
    return Run(
        RunId(info["run_id"]),
        ExperimentId(info["experiment_id"]),
        info.get("run_name", ""),
        info.get("user_id", ""),
        info["status"],
        info["lifecycle_stage"],
        from_millis(int(info["start_time"])),
        from_millis(ended) if ended else None,
        info["artifact_uri"],
        _pairs(data.get("params")),
        _pairs(data.get("tags")),
        {metric.key: metric for metric in metrics},
        [
            {"name": item["dataset"]["name"], "digest": item["dataset"]["digest"], **item}
            for item in document.get("inputs", {}).get("dataset_inputs", [])
        ],
        [(item["model_id"], int(item.get("step", 0))) for item in document.get("outputs", {}).get("model_outputs", [])],
    )


def _logged_model(document: Json) -> LoggedModel:
    info, data = document["info"], document.get("data", {})
    return LoggedModel(
        info["model_id"],
        ExperimentId(info["experiment_id"]),
        info.get("name", ""),
        RunId(info["source_run_id"]) if info.get("source_run_id") else None,
        info["artifact_uri"],
        str(info.get("status", "")),
        info.get("model_type", ""),
        _pairs(data.get("params")),
        _pairs(info.get("tags")),
        from_millis(int(info["creation_timestamp_ms"])),
        from_millis(int(info["last_updated_timestamp_ms"])),
    )


def _version(document: Json) -> RegisteredVersion:
    return RegisteredVersion(
        name=document["name"],
        version=int(document["version"]),
        stage=document.get("current_stage", "None"),
        source=document.get("source", ""),
        run_id=document.get("run_id") or None,
        logged_model_id=document.get("model_id") or None,
        description=document.get("description", ""),
        tags=_pairs(document.get("tags")),
        aliases=list(document.get("aliases", [])),
    )
