"""Params and metrics one by one, a model and a data file in a run without a name. argv: URL, folder for files."""

import json
import sys
import warnings
from pathlib import Path

import mlflow
import mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

warnings.simplefilter("ignore")
X_train, X_test, y_train, y_test = train_test_split(*make_classification(200, random_state=0), random_state=0)
data = Path(sys.argv[2], "preprocessed.csv")
data.write_text("a,b\n1,2\n")

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("customer_churn")
with mlflow.start_run() as run:
    mlflow.log_param("n_estimators", 100)
    mlflow.log_param("max_depth", 10)
    model = RandomForestClassifier(n_estimators=100, max_depth=10)
    model.fit(X_train, y_train)
    accuracy = model.score(X_test, y_test)
    mlflow.log_metric("accuracy", accuracy)
    mlflow.log_metric("f1_score", f1_score(y_test, model.predict(X_test)))
    mlflow.sklearn.log_model(model, "model", serialization_format="cloudpickle")
    mlflow.log_artifact(str(data))

seen = mlflow.get_run(run.info.run_id)
loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
found = {
    "params": seen.data.params,
    "metrics": sorted(seen.data.metrics),
    "accuracy": seen.data.metrics["accuracy"] == accuracy,
    "named": bool(seen.info.run_name),
    "same": bool((loaded.predict(X_test) == model.predict(X_test)).all()),
    "data": Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=data.name)).read_text(),
}
print(json.dumps(found))
