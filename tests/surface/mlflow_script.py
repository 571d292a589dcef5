"""What a user of the stock MLflow client does; run by the tests with MLflow's own interpreter. argv: URL."""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
url = sys.argv[1]
mlflow.set_tracking_uri(url)
client = MlflowClient()
found = {}

X, y = make_classification(200, random_state=0)
model = LogisticRegression().fit(X, y)

mlflow.set_experiment("churn")
with mlflow.start_run(run_name="first") as run:
    mlflow.log_param("depth", 3)
    mlflow.log_params({"rate": 0.1, "kind": "x"})
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"accuracy": 0.93, "auc": 0.95})
    mlflow.set_tag("team", "growth")
    note = Path(tempfile.mkdtemp()) / "note.txt"
    note.write_text("hello")
    mlflow.log_artifact(str(note), "notes")
    mlflow.sklearn.log_model(model, "model", registered_model_name="churn", serialization_format="cloudpickle")
    with mlflow.start_run(run_name="child", nested=True) as child:
        mlflow.log_metric("accuracy", 0.5)

run_id = run.info.run_id
seen = client.get_run(run_id)
found["params"] = seen.data.params
found["metrics"] = seen.data.metrics
found["team"] = seen.data.tags["team"]
found["status"] = seen.info.status
found["history"] = [m.value for m in client.get_metric_history(run_id, "loss")]
found["artifacts"] = [a.path for a in client.list_artifacts(run_id, "notes")]
found["downloaded"] = Path(
    mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="notes/note.txt")
).read_text()
found["found_runs"] = [
    r.info.run_name
    for r in mlflow.search_runs(
        filter_string="metrics.accuracy > 0.9 AND tags.team = 'growth'",
        order_by=["metrics.accuracy DESC"],
        output_format="list",
    )
]
found["child_parent"] = client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run_id
found["experiments"] = sorted(e.name for e in client.search_experiments())

client.set_model_version_tag("churn", "1", "tested", "yes")
client.set_registered_model_alias("churn", "champion", 1)
client.update_model_version("churn", "1", description="first")
client.transition_model_version_stage("churn", 1, "Production")
version = client.get_model_version("churn", "1")
found["version"] = [version.current_stage, version.description, version.tags["tested"], version.run_id == run_id]
found["alias"] = client.get_model_version_by_alias("churn", "champion").version
found["latest"] = [v.version for v in client.get_latest_versions("churn", ["Production"])]
found["versions"] = [
    v.version for v in client.search_model_versions("name = 'churn'", order_by=["version_number DESC"])
]
found["models"] = [m.name for m in client.search_registered_models("name LIKE 'ch%'")]
found["same"] = bool(
    (mlflow.sklearn.load_model("models:/churn/Production").predict(X) == model.predict(X)).all()
    and (mlflow.pyfunc.load_model("models:/churn@champion").predict(X) == model.predict(X)).all()
)
found["files"] = sorted(p.name for p in Path(mlflow.artifacts.download_artifacts("models:/churn/1")).iterdir())

errors = {}


def attempt(name, function):
    try:
        function()
        errors[name] = "accepted"
    except MlflowException as error:
        errors[name] = f"{error.error_code}: {error}"


attempt("unknown run", lambda: client.get_run("0" * 32))
attempt("duplicate model", lambda: client.create_registered_model("churn"))
attempt("changed param", lambda: client.log_param(run_id, "depth", 4))
attempt("bad filter", lambda: mlflow.search_runs(filter_string="metrics.accuracy >"))
attempt("delete production", lambda: client.delete_model_version("churn", "1"))
client.create_registered_model("governed")
client.create_model_version("governed", version.source, run_id)
attempt("policy", lambda: client.transition_model_version_stage("governed", 1, "Production"))
client.set_model_version_tag("governed", "1", "reviewed", "yes")
attempt("policy met", lambda: client.transition_model_version_stage("governed", 1, "Production"))
found["errors"] = errors
print(json.dumps(found))
