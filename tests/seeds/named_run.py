"""A named run with a forest and a picture. argv: URL, folder for files."""

import json
import sys
import warnings
from pathlib import Path

import mlflow
import mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

warnings.simplefilter("ignore")
X_train, X_test, y_train, y_test = train_test_split(*make_classification(200, random_state=0), random_state=0)
picture = Path(sys.argv[2], "feature_importance.png")
picture.write_bytes(b"\x89PNG")

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("classification_experiment")
with mlflow.start_run(run_name="random_forest_v1") as run:
    mlflow.log_param("n_estimators", 100)
    mlflow.log_param("max_depth", 10)
    mlflow.log_param("random_state", 42)
    model = RandomForestClassifier(n_estimators=100, max_depth=10, random_state=42)
    model.fit(X_train, y_train)
    y_pred = model.predict(X_test)
    accuracy = accuracy_score(y_test, y_pred)
    f1 = f1_score(y_test, y_pred, average="weighted")
    mlflow.log_metric("accuracy", accuracy)
    mlflow.log_metric("f1_score", f1)
    mlflow.sklearn.log_model(model, "random_forest_model", serialization_format="cloudpickle")
    mlflow.log_artifact(str(picture))

seen = mlflow.get_run(run.info.run_id)
found = {
    "name": seen.info.run_name,
    "status": seen.info.status,
    "params": seen.data.params,
    "metrics": seen.data.metrics == {"accuracy": accuracy, "f1_score": f1},
    "artifacts": sorted(a.path for a in mlflow.MlflowClient().list_artifacts(run.info.run_id)),
}
print(json.dumps(found))
