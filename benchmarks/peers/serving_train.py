"""The one model that every server of serving.py answers with: trained here, kept as pickles and as ONNX.

Writes into the folder it is given: scaler, forest and pipeline (joblib), model.onnx (one float64 input, no zipmap), and
check.json with rows and the pipeline's own probabilities of the second class for them.
"""

# ruff: noqa: TID253  this is another program, in an environment of its own
from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES, CHECKED = 30, 100


def main() -> None:
    folder = Path(sys.argv[1])
    rows, labels = make_classification(8000, FEATURES, n_informative=15, n_redundant=5, flip_y=0.05, random_state=7)
    train, check = slice(0, 6000), slice(6000, 6000 + CHECKED)
    scaler, forest = StandardScaler(), RandomForestClassifier(100, max_depth=10, random_state=7)
    pipeline = make_pipeline(scaler, forest).fit(rows[train], labels[train])
    for name, part in (("scaler", scaler), ("forest", forest), ("pipeline", pipeline)):
        joblib.dump(part, folder / f"{name}.joblib")
    graph = to_onnx(pipeline, rows[:1], options={"zipmap": False}, target_opset=18)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    probabilities = pipeline.predict_proba(rows[check])[:, 1].tolist()
    (folder / "check.json").write_text(json.dumps({"rows": rows[check].tolist(), "probabilities": probabilities}))


if __name__ == "__main__":
    main()
