"""Fills an MLflow server with some of everything through the stock client. Run by MLflow's own interpreter."""

import math
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag

RUNS = 10

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()


class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[float]) -> list[float]:
        return [2 * value for value in model_input]


with mlflow.start_run(run_name="in default"):
    mlflow.log_param("plain", "yes")

churn = client.create_experiment("churn 'quoted' ÄÖ", tags={"mlflow.note.content": "Who leaves?", "team": "growth"})
for number in range(RUNS):
    run = client.create_run(churn, run_name=f"run {number}", tags={"kind": "bulk", "long": "x" * 500})
    now = round(time.time() * 1000)
    points = [Metric("loss", 1 / (step + 1), now + step, step) for step in range(40)]
    odd = [Metric("odd", math.nan, now, 0), Metric("odd", math.inf, now, 1), Metric("odd", -1.5, now, -3)]
    params = [Param("depth", str(number)), Param("empty", ""), Param("text", "p" * 3000)]
    client.log_batch(run.info.run_id, metrics=points + odd, params=params, tags=[RunTag("ünï", "çödé\nline")])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "notes").mkdir()
        Path(folder, "notes", "with space & ümlaut.txt").write_text(f"note {number}")
        Path(folder, "raw.bin").write_bytes(bytes(range(256)) * (number + 1))
        client.log_artifacts(run.info.run_id, folder)
    client.set_terminated(run.info.run_id, "FAILED" if number % 10 == 9 else "FINISHED")
last = run.info.run_id
client.delete_run(last)
running = client.create_run(churn, run_name="still running")

mlflow.set_experiment("models")
for number in range(2):
    with mlflow.start_run(run_name=f"train {number}") as active:
        data = MetaDataset(HTTPDatasetSource("https://example.org/data.csv"), name="visits", digest=f"d{number}")
        mlflow.log_input(data, context="training", tags={"split": "a"})
        mlflow.log_metric("auc", 0.9 + number / 100)
        mlflow.pyfunc.log_model(name="model", python_model=Doubler(), registered_model_name="doubler")
with mlflow.start_run(run_name="by run") as active:
    mlflow.log_text("weights", "plain/weights.txt")
uri = f"runs:/{active.info.run_id}/plain"
client.create_registered_model("from-run", tags={"owner": "me"}, description="A model of a run")
for _ in range(3):
    client.create_model_version("from-run", f"{active.info.artifact_uri}/plain", active.info.run_id)
client.delete_model_version("from-run", "2")

client.update_registered_model("doubler", "Doubles what it gets")
client.set_model_version_tag("doubler", "2", "reviewed", "yes")
client.update_model_version("doubler", "2", "the second")
client.transition_model_version_stage("doubler", "1", "Archived")
client.transition_model_version_stage("doubler", "2", "Production")
client.set_registered_model_alias("doubler", "champion", "2")
client.set_registered_model_alias("doubler", "challenger", "1")
client.transition_model_version_stage("from-run", "3", "Staging")
client.set_registered_model_alias("from-run", "old", "1")

mlflow.genai.register_prompt("greeting", "Hello {{name}}", tags={"tone": "kind"})

gone = client.create_experiment("gone")
client.set_terminated(client.create_run(gone, run_name="lost").info.run_id)
client.delete_experiment(gone)
