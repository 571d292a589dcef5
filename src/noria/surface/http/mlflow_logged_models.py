"""The logged-model part of MLflow's protocol: models a client saved, before they are registered."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noria.clock import to_millis
from noria.errors import InvalidInput
from noria.registry.protection import require_unregistered
from noria.store.workspace import artifact_key
from noria.surface.http.mlflow_artifacts import listing
from noria.surface.http.mlflow_call import Call, Handler, as_pairs
from noria.surface.http.mlflow_tracking import metric_document
from noria.tracking import logged_models, run_keys, search
from noria.tracking.entities import LoggedModel, ModelMetric

_STATUSES = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
_ODD_NAME = re.compile(r"[/:.%\"']")
_TIMES = ("creation_time", "creation_timestamp", "last_updated_timestamp")
_TEXTS = ("name", "model_id", "model_type", "status", "source_run_id")
_SEARCHABLE = search.Searchable(
    texts=_TEXTS,
    numbers=_TIMES,
    orders=(*_TEXTS, *_TIMES),
    kinds=("tags", "params", "metrics"),
    ordered_kinds=("tags", "params", "metrics"),
    nulls=False,
)
Json = Mapping[str, object]


def _create_logged_model(call: Call) -> Json:
    if _ODD_NAME.search(call.text("name", "")):
        raise InvalidInput("the name of a logged model holds / : . % or a quote", remedy="Choose a plain name.")
    with call.workspace.database.write() as tx:
        made = logged_models.create(
            tx,
            call.text("experiment_id"),
            name=call.text("name", ""),
            source_run_id=call.text("source_run_id", ""),
            model_type=call.text("model_type", ""),
            params=call.pairs("params"),
            tags=call.pairs("tags"),
            at=call.clock.now(),
        )
    return {"model": _logged_model(made)}


def _get_logged_model(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"model": _logged_model(logged_models.get(tx, call.path["model_id"]))}


def _finalize_logged_model(call: Call) -> Json:
    if (status := call.text("status")) not in _STATUSES:
        raise InvalidInput(f"{status!r} is no status of a logged model", remedy=f"Use one of {', '.join(_STATUSES)}.")
    with call.workspace.database.write() as tx:
        if status != logged_models.READY:
            require_unregistered(tx, logged_models.get(tx, call.path["model_id"]))
        changed = logged_models.change(tx, call.path["model_id"], at=call.clock.now(), status=status)
    return {"model": _logged_model(changed)}


def _log_model_params(call: Call) -> Json:
    params = call.pairs("params")
    run_keys.check_params(params)
    with call.workspace.database.write() as tx:
        logged_models.change(tx, call.path["model_id"], at=call.clock.now(), params=params)
    return {}


def _set_model_tags(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        logged_models.change(tx, call.path["model_id"], at=call.clock.now(), tags=call.pairs("tags"))
    return {}


def _delete_model_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        logged_models.delete_tag(tx, call.path["model_id"], call.path["key"], at=call.clock.now())
    return {}


def _delete_logged_model(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        require_unregistered(tx, logged_models.get(tx, call.path["model_id"]))
        logged_models.delete(tx, call.path["model_id"], at=call.clock.now())
    return {}


def _search_logged_models(call: Call) -> Json:
    if not (experiment_ids := call.texts("experiment_ids")):
        raise InvalidInput("Missing value for required parameter 'experiment_ids'.", remedy="Send experiment_ids.")
    datasets = [_dataset(item) for item in call.objects("datasets")]
    if not all(dataset.name for dataset in datasets):
        raise InvalidInput("`dataset_name` in the `datasets` clause must be specified.", remedy="Send dataset_name.")
    orders = [_order(item) for item in call.objects("order_by")]
    with call.workspace.database.read() as tx:
        found = logged_models.search(tx, experiment_ids)
    if datasets:
        found = [model for model in found if any(_is_on(item, datasets) for item in model.metrics)]
    found = search.select_matching(
        found, lambda model: _fields(model, datasets), call.text("filter", ""), (), _SEARCHABLE
    )
    for value_of, descending in reversed(orders):
        found = search.order(found, value_of, descending)
    page, rest = call.page(found, default_size=100, largest=1_000_000)
    return {"models": [_logged_model(item) for item in page], **rest}


def _list_model_artifacts(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        model = logged_models.get(tx, call.path["model_id"])
    root = artifact_key(model.artifact_uri)
    key = f"{root}/{call.folder('artifact_directory_path')}"
    return {"root_uri": model.artifact_uri, "files": listing(call.workspace.artifacts, key, relative_to=root)}


HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("POST", "/logged-models"): _create_logged_model,
    ("POST", "/logged-models/search"): _search_logged_models,
    ("GET", "/logged-models/{model_id}"): _get_logged_model,
    ("PATCH", "/logged-models/{model_id}"): _finalize_logged_model,
    ("POST", "/logged-models/{model_id}/params"): _log_model_params,
    ("PATCH", "/logged-models/{model_id}/tags"): _set_model_tags,
    ("DELETE", "/logged-models/{model_id}/tags/{key}"): _delete_model_tag,
    ("DELETE", "/logged-models/{model_id}"): _delete_logged_model,
    ("GET", "/logged-models/{model_id}/artifacts/directories"): _list_model_artifacts,
}


# wire shapes


@dataclass(frozen=True, slots=True)
class _Dataset:
    """What a model was measured on; an empty name or digest is any."""

    name: str
    digest: str


def _dataset(item: Mapping[str, Any]) -> _Dataset:
    name, digest = item.get("dataset_name") or "", item.get("dataset_digest") or ""
    if not isinstance(name, str) or not isinstance(digest, str):
        raise InvalidInput("a dataset's name or digest is no text", remedy="Send both as texts.")
    return _Dataset(name, digest)


def _is_on(item: ModelMetric, datasets: Sequence[_Dataset]) -> bool:
    """Whether it was measured on one of these datasets; any will do when none is given."""
    return not datasets or any(
        wanted.name in ("", item.dataset_name) and wanted.digest in ("", item.dataset_digest) for wanted in datasets
    )


def _order(item: Mapping[str, Any]) -> tuple[Callable[[LoggedModel], search.Value], bool]:
    """(value to order by, whether descending). With a dataset the metric's newest value on it is what counts."""
    kind, key, _ = search.parse_order(str(item.get("field_name", "")))
    _SEARCHABLE.check_order(kind, key)
    datasets = [_dataset(item)]
    return lambda model: _fields(model, datasets)(kind, key), not item.get("ascending", True)


def _fields(model: LoggedModel, datasets: Sequence[_Dataset]) -> search.Fields:
    attributes: dict[str, search.Value] = {
        "name": model.name,
        "model_id": model.model_id,
        "model_type": model.model_type,
        "status": model.status,
        "source_run_id": model.source_run_id,
        "creation_time": float(to_millis(model.created_at)),
        "creation_timestamp": float(to_millis(model.created_at)),
        "last_updated_timestamp": float(to_millis(model.updated_at)),
    }
    measured = [item.metric for item in model.metrics if _is_on(item, datasets)]
    sources: Mapping[str, Mapping[str, search.Value]] = {
        "attributes": attributes,
        "tags": model.tags,
        "params": model.params,
        "metrics": {m.key: m.value for m in measured if not math.isnan(m.value)},
    }
    return lambda kind, key: sources.get(kind, {}).get(key)


def _metric(item: ModelMetric) -> Json:
    document = dict(metric_document(item.metric)) | {"model_id": item.model_id, "run_id": item.run_id}
    of_dataset = {"dataset_name": item.dataset_name, "dataset_digest": item.dataset_digest}
    return document | {key: value for key, value in of_dataset.items() if value}


def _logged_model(model: LoggedModel) -> Json:
    info = {
        "model_id": model.model_id,
        "experiment_id": model.experiment_id,
        "name": model.name,
        "creation_timestamp_ms": to_millis(model.created_at),
        "last_updated_timestamp_ms": to_millis(model.updated_at),
        "artifact_uri": model.artifact_uri,
        "status": model.status,
        "model_type": model.model_type,
        "source_run_id": model.source_run_id or "",
        "tags": as_pairs(model.tags),
    }
    return {
        "info": info,
        "data": {"params": as_pairs(model.params), "metrics": [_metric(item) for item in model.metrics]},
    }
