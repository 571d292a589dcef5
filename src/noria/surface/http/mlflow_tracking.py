"""The tracking half of MLflow's protocol: experiments, runs, metrics, logged models."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from noria.clock import Clock, to_millis
from noria.errors import InvalidInput, NotFound
from noria.store.workspace import Workspace, artifact_key, artifact_uri
from noria.surface.http.mlflow_artifacts import listing
from noria.surface.http.mlflow_call import Call, Handler, as_pairs, next_page, wrong_token
from noria.tracking import experiments, metrics, runs, search
from noria.tracking.entities import Experiment, Metric, Run
from noria.tracking.run_search import search_runs

_ROOT = artifact_uri("")
_SEARCHABLE = search.Searchable(
    texts=("name",),
    numbers=("creation_time", "last_update_time"),
    orders=("name", "experiment_id", "creation_time", "last_update_time"),
)
_MOST_RUNS, _MOST_VALUES = 100, 2500
Json = Mapping[str, object]
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_PLACE = msgspec.json.Decoder(tuple[_Int, _Int, float | None])


def prepare(workspace: Workspace, clock: Clock) -> None:
    """Make what clients take for granted: the experiment "Default"."""
    with workspace.database.write() as tx:
        experiments.ensure_default(tx, artifact_root=_ROOT, at=clock.now())


# experiments


def _create_experiment(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        made = experiments.create(
            tx, call.text("name"), artifact_root=_ROOT, at=call.clock.now(), tags=call.pairs("tags")
        )
    return {"experiment_id": made.experiment_id}


def _get_experiment(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"experiment": _experiment(experiments.get(tx, call.text("experiment_id")))}


def _get_experiment_by_name(call: Call) -> Json:
    name = call.text("experiment_name")
    with call.workspace.database.read() as tx:
        found = experiments.find(tx, name)
    if found is None:
        raise NotFound(f"Could not find experiment with name '{name}'", remedy="Create it first.")
    return {"experiment": _experiment(found)}


def _search_experiments(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        found = [
            e for e in experiments.list_all(tx) if _in_view(e.lifecycle_stage, call.text("view_type", "ACTIVE_ONLY"))
        ]
    matching = search.select_matching(
        found, _experiment_fields, call.text("filter", ""), call.texts("order_by"), _SEARCHABLE
    )
    page, rest = call.page(matching, default_size=1000, largest=50_000)
    return {"experiments": [_experiment(item) for item in page], **rest}


def _update_experiment(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        experiments.change(tx, call.text("experiment_id"), at=call.clock.now(), name=call.required("new_name"))
    return {}


def _experiment_stage(stage: str) -> Handler:
    def handler(call: Call) -> Json:
        with call.workspace.database.write() as tx:
            experiments.move(tx, call.text("experiment_id"), stage, at=call.clock.now())
        return {}

    return handler


def _set_experiment_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        before = experiments.get(tx, call.text("experiment_id"))
        key, value = call.text("key"), call.text("value", "")
        experiments.check_tag(key, value)
        experiments.change(tx, before.experiment_id, at=call.clock.now(), tags={**before.tags, key: value})
    return {}


def _delete_experiment_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        before, key = experiments.get(tx, call.text("experiment_id")), call.text("key")
        if key not in before.tags:
            raise NotFound(f"experiment {before.experiment_id} has no tag {key!r}", remedy="Get it to see its tags.")
        left = {name: value for name, value in before.tags.items() if name != key}
        experiments.change(tx, before.experiment_id, at=call.clock.now(), tags=left)
    return {}


# runs


def _create_run(call: Call) -> Json:
    tags = call.pairs("tags")
    if call.text("run_name", "") not in ("", tags.get("mlflow.runName", call.text("run_name", ""))):
        raise InvalidInput("run_name and the tag mlflow.runName differ", remedy="Send one of them, or the same.")
    with call.workspace.database.write() as tx:
        made = runs.start(
            tx,
            call.text("experiment_id", experiments.DEFAULT_ID),
            name=call.text("run_name", ""),
            user=call.actor if call.identity.proven else call.text("user_id", call.actor),
            at=call.instant("start_time"),
            tags=tags,
        )
    return {"run": _run(made)}


def _update_run(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        changed = runs.change(
            tx,
            _run_id(call),
            status=call.text("status", "") or None,
            ended_at=call.instant("end_time"),
            name=call.text("run_name", "") or None,
        )
    return {"run_info": _run_info(changed)}


def _get_run(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"run": _run(runs.get(tx, _run_id(call)))}


def _run_stage(stage: str) -> Handler:
    def handler(call: Call) -> Json:
        with call.workspace.database.write() as tx:
            runs.change(tx, _run_id(call), lifecycle_stage=stage)
        return {}

    return handler


def _delete_tag(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        runs.require(tx, _run_id(call))
        runs.delete_tag(tx, _run_id(call), call.text("key"))
    return {}


def _log_inputs(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        runs.require(tx, _run_id(call))
        for item in call.objects("datasets"):
            dataset = item.get("dataset", {})
            if not isinstance(dataset, dict) or not isinstance(item.get("tags", []), list):
                raise InvalidInput("an entry of 'datasets' holds no dataset", remedy="See MLflow's REST API.")
            document = {"tags": item.get("tags", []), "dataset": dataset}
            name, digest = str(dataset.get("name", "")), str(dataset.get("digest", ""))
            if len(name) > 250 or len(digest) > 36:
                raise InvalidInput(
                    "the name or digest of a dataset is too long", remedy="At most 250 and 36 characters."
                )
            runs.log_dataset(tx, _run_id(call), name, digest, document, context=_context(item))
        for item in call.objects("models"):
            runs.log_model_input(tx, _run_id(call), str(item.get("model_id", "")))
    return {}


def _log_outputs(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        runs.require(tx, _run_id(call))
        for item in call.objects("models"):
            step = item.get("step", 0)
            if not isinstance(step, int) or isinstance(step, bool):
                raise InvalidInput(f"step is {step!r}, not an integer", remedy="Send a number.")
            runs.log_output(tx, _run_id(call), str(item.get("model_id", "")), step)
    return {}


def _log_model(call: Call) -> Json:
    """The older clients' record of a saved model: kept as a tag of the run, as they expect to find it."""
    entry = call.text("model_json")
    _check_model(entry)
    with call.workspace.database.write() as tx:
        run = runs.get(tx, _run_id(call))
        history = run.tags.get("mlflow.log-model.history", "[]")
        joined = f"[{entry}]" if history == "[]" else f"{history[:-1]},{entry}]"
        runs.set_tags(tx, _run_id(call), {"mlflow.log-model.history": joined})
    return {}


def _search_runs(call: Call) -> Json:
    size, start = call.page_bounds(default_size=1000, largest=50_000)
    if not all(item.isdecimal() for item in call.texts("experiment_ids")):
        raise InvalidInput("experiment_ids holds what is no id", remedy="Send the numbers of experiments.")
    with call.workspace.database.read() as tx:
        found = search_runs(
            tx,
            call.texts("experiment_ids"),
            filter_text=call.text("filter", ""),
            order_by=call.texts("order_by"),
            view=call.text("run_view_type", "ACTIVE_ONLY"),
            limit=size + 1,
            offset=start,
        )
    return {"runs": [_run(item) for item in found[:size]], **next_page(found, size, start)}


def _metric_history(call: Call) -> Json:
    size, key = call.page_size(default=25_000, largest=1_000_000), call.text("metric_key")
    after = _from_token(key, call.text("page_token", ""))
    with call.workspace.database.read() as tx:
        runs.require_known(tx, _run_id(call))
        history = metrics.history(tx, _run_id(call), key, limit=size + 1, after=after)
    page = history[:size]
    rest = {"next_page_token": _to_token(page[-1])} if len(history) > size else {}
    return {"metrics": _written(page), **rest}


def _to_token(metric: Metric) -> str:
    """Where the next page of a history begins: behind this value."""
    place = metric.step, metric.timestamp_millis, metric.value  # JSON has null for NaN
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _from_token(key: str, token: str) -> Metric | None:
    if not token:
        return None
    try:
        step, timestamp, value = _PLACE.decode(base64.urlsafe_b64decode(token))
    except ValueError:
        raise wrong_token(token) from None
    return Metric(key, math.nan if value is None else value, timestamp, step)


def _metric_history_of_runs(call: Call) -> Json:
    """The values of one metric of several runs, thinned to about as many steps as asked for."""
    run_ids, key, most = call.texts("run_ids"), call.text("metric_key"), call.number("max_results", _MOST_VALUES)
    bounds = [call.number(name) for name in ("start_step", "end_step") if name in call.arguments]
    if (
        not 1 <= len(run_ids) <= _MOST_RUNS
        or not 1 <= most <= _MOST_VALUES
        or len(bounds) == 1
        or bounds != sorted(bounds)
    ):
        raise InvalidInput(
            f"{len(run_ids)} runs, max_results {most} or the interval of steps is out of range",
            remedy=f"Ask for 1 to {_MOST_RUNS} runs, 1 to {_MOST_VALUES} results, and both steps or none.",
        )
    with call.workspace.database.read() as tx:
        steps = metrics.steps(tx, run_ids, key, bounds)
        chosen = metrics.thinned(steps, most)
        found = [
            {**metric_document(metric), "run_id": run_id}
            for run_id in run_ids
            for metric in metrics.at_steps(tx, run_id, key, chosen)[:_MOST_VALUES]
        ]
    return {"metrics": found}


def _list_artifacts(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        run = runs.get(tx, _run_id(call))
    root = artifact_key(run.artifact_uri)
    files = listing(call.workspace.artifacts, f"{root}/{call.folder('path')}", relative_to=root)
    return {"root_uri": run.artifact_uri, "files": files}


HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("POST", "/experiments/create"): _create_experiment,
    ("GET", "/experiments/get"): _get_experiment,
    ("GET", "/experiments/get-by-name"): _get_experiment_by_name,
    ("POST", "/experiments/search"): _search_experiments,
    ("GET", "/experiments/search"): _search_experiments,
    ("POST", "/experiments/update"): _update_experiment,
    ("POST", "/experiments/delete"): _experiment_stage(experiments.DELETED),
    ("POST", "/experiments/restore"): _experiment_stage(experiments.ACTIVE),
    ("POST", "/experiments/set-experiment-tag"): _set_experiment_tag,
    ("POST", "/experiments/delete-experiment-tag"): _delete_experiment_tag,
    ("POST", "/runs/create"): _create_run,
    ("POST", "/runs/update"): _update_run,
    ("GET", "/runs/get"): _get_run,
    ("POST", "/runs/delete"): _run_stage(experiments.DELETED),
    ("POST", "/runs/restore"): _run_stage(experiments.ACTIVE),
    ("POST", "/runs/delete-tag"): _delete_tag,
    ("POST", "/runs/log-inputs"): _log_inputs,
    ("POST", "/runs/outputs"): _log_outputs,
    ("POST", "/runs/log-model"): _log_model,
    ("POST", "/runs/search"): _search_runs,
    ("GET", "/metrics/get-history"): _metric_history,
    ("GET", "/metrics/get-history-bulk-interval"): _metric_history_of_runs,
    ("GET", "/artifacts/list"): _list_artifacts,
}


# wire shapes


def _run_id(call: Call) -> str:
    return call.text("run_id", "") or call.text("run_uuid")


def _check_model(text: str) -> None:
    """Raises InvalidInput for what is no description of a saved model."""
    try:
        model = json.loads(text)
    except ValueError:
        model = None
    if not isinstance(model, dict) or not {"artifact_path", "flavors", "run_id", "utc_time_created"} <= set(model):
        raise InvalidInput("model_json does not describe a model", remedy="Send the JSON of an MLmodel file.")


def _context(item: Mapping[str, Any]) -> str:
    tags = [tag for tag in item.get("tags", []) if isinstance(tag, dict) and tag.get("key") == "mlflow.data.context"]
    return str(tags[0].get("value", "")) if tags else ""


def _in_view(stage: str, view: str) -> bool:
    return view == "ALL" or (stage == experiments.DELETED) == (view == "DELETED_ONLY")


def _experiment_fields(item: Experiment) -> search.Fields:
    attributes: dict[str, search.Value] = {
        "name": item.name,
        "experiment_id": item.experiment_id,
        "creation_time": float(to_millis(item.created_at)),
        "last_update_time": float(to_millis(item.updated_at)),
    }
    return lambda kind, key: item.tags.get(key) if kind == "tags" else attributes.get(key)


def _experiment(item: Experiment) -> Json:
    return {
        "experiment_id": item.experiment_id,
        "name": item.name,
        "artifact_location": item.artifact_location,
        "lifecycle_stage": item.lifecycle_stage,
        "creation_time": to_millis(item.created_at),
        "last_update_time": to_millis(item.updated_at),
        "tags": as_pairs(item.tags),
    }


def _run(run: Run) -> Json:
    return {
        "info": _run_info(run),
        "data": {
            "metrics": _written(run.metrics.values()),
            "params": as_pairs(run.params),
            "tags": as_pairs(run.tags),
        },
        "inputs": {
            "dataset_inputs": [_dataset_input(item) for item in run.datasets],
            "model_inputs": [{"model_id": model} for model in run.model_inputs],
        },
        "outputs": {"model_outputs": [{"model_id": model, "step": step} for model, step in run.model_outputs]},
    }


def _dataset_input(item: Mapping[str, object]) -> Json:
    plain = {"name": item["name"], "digest": item["digest"], "source_type": "noria", "source": "{}"}
    return {"dataset": item.get("dataset", plain), "tags": item.get("tags", [])}


def _run_info(run: Run) -> Json:
    info: dict[str, object] = {
        "run_id": run.run_id,
        "run_uuid": run.run_id,
        "run_name": run.name,
        "experiment_id": run.experiment_id,
        "user_id": run.user,
        "status": run.status,
        "start_time": to_millis(run.started_at),
        "artifact_uri": run.artifact_uri,
        "lifecycle_stage": run.lifecycle_stage,
    }
    return info if run.ended_at is None else info | {"end_time": to_millis(run.ended_at)}


def metric_document(metric: Metric) -> Json:
    """A metric as the protocol writes it."""
    return {
        "key": metric.key,
        "value": "NaN" if math.isnan(metric.value) else metric.value,
        "timestamp": metric.timestamp_millis,
        "step": metric.step,
    }


def _written(values: Iterable[Metric]) -> list[Metric | Json]:
    """What encodes to the metrics' documents: of the many that a history has, most are it already."""
    return [metric if metric.value == metric.value else metric_document(metric) for metric in values]  # NaN is not
