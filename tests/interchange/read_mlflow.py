"""Reads all that fill_mlflow.py wrote, through the stock client, and prints it as JSON: once for each address given."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow.entities import ViewType


def read(address: str) -> dict[str, object]:
    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient(address)
    experiments = client.search_experiments(view_type=ViewType.ALL)
    found: dict[str, object] = {}
    for experiment in experiments:
        for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL):
            history = {
                key: [point(m) for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics
            }
            found[f"run {run.info.run_id}"] = [
                experiment.name,
                experiment.lifecycle_stage,
                run.info.run_name,
                run.info.status,
                run.info.lifecycle_stage,
                run.info.start_time,
                run.info.end_time,
                run.data.params,
                plain(run.data.tags),
                history,
                [
                    [d.dataset.name, d.dataset.digest, {t.key: t.value for t in d.tags}]
                    for d in run.inputs.dataset_inputs
                ],
                [output.model_id for output in run.outputs.model_outputs] if run.outputs else [],
                artifacts(address, run.info.run_id),
            ]
    for model in client.search_registered_models():
        found[f"model {model.name}"] = [model.description, plain(model.tags), model.aliases]
    for model in client.search_registered_models():  # by name: MLflow hides the versions of prompts, Noria does not yet
        for version in client.search_model_versions(f"name = '{model.name}'"):
            found[f"version {version.name} {version.version}"] = [
                version.current_stage,
                version.run_id,
                version.description,
                plain(version.tags),
            ]
    found["champion says"] = list(mlflow.pyfunc.load_model("models:/doubler@champion").predict([1.0, 2.5]))
    found["prompt"] = mlflow.genai.load_prompt("prompts:/greeting/1").template
    return found


def point(metric) -> list[object]:
    return [metric.step, metric.timestamp, repr(metric.value)]


def plain(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("noria.")}


def artifacts(address: str, run_id: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=folder, tracking_uri=address)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


print(json.dumps([read(address) for address in sys.argv[1:]]))
