"""Registering, naming, tracing, rolling back, comparing, listing, cleaning up. argv: URL, folder for files."""

import datetime
import json
import os
import sys
import warnings
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.tracking import MlflowClient
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

warnings.simplefilter("ignore")
url, folder = sys.argv[1:3]
found = {}
model_name = "fgedu_classifier"
X, y = make_classification(100, random_state=0)
model = RandomForestClassifier(n_estimators=5, random_state=0).fit(X, y)

# register
mlflow.set_tracking_uri(url)
mlflow.set_experiment("fgedu_classifier_experiment")
for accuracy, f1 in ((0.95, 0.95), (0.85, 0.85), (0.94, 0.94)):
    with mlflow.start_run(run_name="fgedu_classifier_v1.0"):
        mlflow.log_param("model_type", "RandomForest")
        mlflow.log_param("n_estimators", 100)
        mlflow.log_param("max_depth", 10)
        mlflow.log_metric("accuracy", accuracy)
        mlflow.log_metric("precision", 0.94)
        mlflow.log_metric("recall", 0.96)
        mlflow.log_metric("f1_score", f1)
        mlflow.log_metric("training_samples", 80000)
        mlflow.set_tag("data.source", "s3://fgedu-data/raw/customer_data_2026q1.parquet")
        mlflow.log_text("an epoch", "training_log.txt")
        mlflow.sklearn.log_model(
            sk_model=model,
            artifact_path="model",
            registered_model_name=model_name,
            serialization_format="cloudpickle",
        )

# manage
client = MlflowClient(tracking_uri=url)
versions = client.search_model_versions(f"name='{model_name}'")
found["versions"] = sorted([v.version, v.status, v.current_stage] for v in versions)
client.set_registered_model_alias(name=model_name, alias="champion", version="1")
client.update_model_version(name=model_name, version="1", description="Initial production model with 95% accuracy")
client.set_model_version_tag(name=model_name, version="1", key="production_ready", value="true")
client.transition_model_version_stage(name=model_name, version="1", stage="Production")


# name by hand
def generate_version_name(model_name, version_type="patch"):
    latest = client.search_model_versions(f"name='{model_name}'", order_by=["version_number DESC"], max_results=1)
    if not latest:
        return "v1.0.0"
    major, minor, patch = map(int, latest[0].tags.get("semantic_version", "v1.0.0")[1:].split("."))
    if version_type == "major":
        return f"v{major + 1}.0.0"
    return f"v{major}.{minor + 1}.0" if version_type == "minor" else f"v{major}.{minor}.{patch + 1}"


found["named"] = generate_version_name(model_name, "patch")
client.set_model_version_tag(name=model_name, version="2", key="semantic_version", value=found["named"])
release = datetime.datetime.now().strftime("%Y-%m-%d")
client.set_model_version_tag(name=model_name, version="2", key="release_date", value=release)
client.set_model_version_tag(name=model_name, version="2", key="author", value="fgedu_ml_team")

# look at one
version = client.get_model_version(model_name, "1")
found["one"] = [version.current_stage, version.description, version.tags["production_ready"]]
found["dated"] = version.creation_timestamp <= version.last_updated_timestamp
loaded = mlflow.sklearn.load_model(f"models:/{model_name}/1")
found["loaded"] = type(loaded).__name__

# lineage
run = client.get_run(version.run_id)
found["lineage"] = [run.info.status, run.data.params["model_type"], run.data.metrics["accuracy"]]
found["data"] = [run.data.tags.get("data.source", "N/A"), run.data.tags.get("data.preprocessing", "N/A")]
found["samples"] = run.data.metrics.get("training_samples", "N/A")

# compare
rows = []
for version in client.search_model_versions(f"name='{model_name}'"):
    metrics = client.get_run(version.run_id).data.metrics
    rows.append({"Version": version.version, "Accuracy": metrics.get("accuracy", 0), "F1": metrics.get("f1_score", 0)})
table = pd.DataFrame(rows)
found["best"] = table.loc[table["Accuracy"].idxmax()]["Version"]


# roll back by hand, as one had to
def rollback_model(target_version, reason):
    current = next(
        v.version for v in client.search_model_versions(f"name='{model_name}'") if v.current_stage == "Production"
    )
    client.transition_model_version_stage(name=model_name, version=current, stage="Archived")
    client.set_model_version_tag(name=model_name, version=current, key="rollback_reason", value=reason)
    client.transition_model_version_stage(name=model_name, version=target_version, stage="Production")
    client.set_model_version_tag(name=model_name, version=target_version, key="rollback_from", value=current)


client.transition_model_version_stage(name=model_name, version="2", stage="Production")
rollback_model("1", "Accuracy dropped below threshold")
found["stages"] = {v.version: v.current_stage for v in client.search_model_versions(f"name='{model_name}'")}
found["rollback"] = client.get_model_version(model_name, "1").tags["rollback_from"]


# artifacts
def list_artifacts_recursive(path=""):
    for artifact in client.list_artifacts(run.info.run_id, path):
        if artifact.is_dir:
            yield from list_artifacts_recursive(artifact.path)
        else:
            yield artifact.path


found["artifacts"] = sorted(list_artifacts_recursive())
target = f"{folder}/{model_name}_v1"
Path(target).mkdir(parents=True)
local_path = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model_name}/1", dst_path=target)
found["files"] = sorted(file for _, _, files in os.walk(local_path) for file in files)

# clean up what is older than 90 days, then what is archived
cutoff = datetime.datetime.now() - datetime.timedelta(days=90)
old = [
    v
    for v in client.search_model_versions(f"name='{model_name}'")
    if v.current_stage in ["Archived", "None"] and datetime.datetime.fromtimestamp(v.creation_timestamp / 1000) < cutoff
]
found["old"] = len(old)
client.delete_model_version(model_name, "2")
found["left"] = sorted(v.version for v in client.search_model_versions(f"name='{model_name}'"))

# what no release of the client has had
found["serve"] = hasattr(mlflow.models, "serve")
print(json.dumps(found))
