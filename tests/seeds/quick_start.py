"""A forest is logged and registered, promoted, archived, loaded by its stage. argv: URL, folder for files."""

import json
import sys
import warnings
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

warnings.simplefilter("ignore")
found = {}
X_train, X_test, y_train, y_test = train_test_split(*make_classification(200, random_state=0), random_state=0)

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("customer-churn-prediction")
for _ in range(3):
    with mlflow.start_run(run_name="rf-baseline"):
        params = {"n_estimators": 100, "max_depth": 10, "random_state": 42}
        mlflow.log_params(params)
        model = RandomForestClassifier(**params)
        model.fit(X_train, y_train)
        y_pred = model.predict(X_test)
        metrics = {
            "accuracy": accuracy_score(y_test, y_pred),
            "f1_score": f1_score(y_test, y_pred, average="weighted"),
        }
        mlflow.log_metrics(metrics)
        try:
            mlflow.sklearn.log_model(model, "refused")
        except mlflow.exceptions.MlflowException:
            found["default format"] = "refused by the client"
        mlflow.sklearn.log_model(
            model,
            "model",
            registered_model_name="churn-classifier",
            signature=mlflow.models.infer_signature(X_train, y_pred),
            serialization_format="cloudpickle",
        )
        Path(sys.argv[2], "train.csv").write_text("a,b\n1,2\n")
        mlflow.log_artifact(str(Path(sys.argv[2], "train.csv")))
        mlflow.log_params({"data_version": "v2.3"})
        run_id = mlflow.active_run().info.run_id

client = MlflowClient()
client.transition_model_version_stage(name="churn-classifier", version=2, stage="Production")
client.transition_model_version_stage(name="churn-classifier", version=3, stage="Production")
client.transition_model_version_stage(name="churn-classifier", version=2, stage="Archived")
model_uri = "models:/churn-classifier/Production"
loaded = mlflow.sklearn.load_model(model_uri)
found["same"] = bool((loaded.predict(X_test) == y_pred).all())
found["stages"] = {v.version: v.current_stage for v in client.search_model_versions("name='churn-classifier'")}
run = client.get_run(run_id)
found["params"] = run.data.params
found["metrics"] = run.data.metrics == metrics
found["artifacts"] = sorted(a.path for a in client.list_artifacts(run_id))
print(json.dumps(found))
