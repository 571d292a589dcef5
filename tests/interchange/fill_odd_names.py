"""Fill an MLflow store with names at and beyond the limits, and with a copy of a version. argv: URI."""

import sys

import mlflow

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
for name in ("e" * 500, "東京都" * 60):
    run = client.create_run(client.create_experiment(name)).info
    client.log_metric(run.run_id, "auc", 0.5)
    client.log_text(run.run_id, "weights", "model/weights")
    client.set_terminated(run.run_id)
named, beyond = "模型" * 100, "x" * 256
for name in (named, beyond):
    client.create_registered_model(name)
client.create_model_version(named, f"{run.artifact_uri}/model", run.run_id)
client.create_model_version(named, f"{run.artifact_uri}/model", run.run_id)
client.create_registered_model("copy")
client.copy_model_version(f"models:/{named}/1", "copy")
client.delete_model_version(named, "1")
