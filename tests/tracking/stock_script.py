"""What the stock MLflow client does with our client's models; run with MLflow's interpreter. argv: URL, rows, URIs."""

import json
import sys
import warnings

import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
url, rows, estimator_uris, other_uri = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
mlflow.set_tracking_uri(url)
frame = pd.DataFrame(rows)

found = {"pyfunc": [mlflow.pyfunc.load_model(uri).predict(frame).tolist() for uri in estimator_uris]}
found["sklearn"] = [mlflow.sklearn.load_model(uri).predict_proba(frame).tolist() for uri in estimator_uris]
found["other"] = list(mlflow.pyfunc.load_model(other_uri).predict(frame))
found["signature"] = str(mlflow.models.get_model_info(estimator_uris[0]).signature.inputs)

mlflow.set_experiment("stock")
model = LogisticRegression().fit(frame, [0, 0, 1, 1])
with mlflow.start_run() as run:
    mlflow.log_params({"depth": 3})
    mlflow.log_metric("auc", 0.9, step=4)
    mlflow.log_input(mlflow.data.from_pandas(frame, name="rows"), context="training")
    mlflow.log_text("hello", "note.txt")
    mlflow.sklearn.log_model(model, name="own", registered_model_name="stock", serialization_format="cloudpickle")
    mlflow.sklearn.log_model(model, name="safe", serialization_format="skops")
found["run_id"] = run.info.run_id
found["scores"] = model.predict_proba(frame).tolist()
print(json.dumps(found))
