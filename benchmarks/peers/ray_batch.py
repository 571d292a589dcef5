"""Ray Data's side of batch prediction: the same graph on the same rows. Run by Ray's own Python."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import onnxruntime  # noqa: TID253  this is another program, in an environment of its own
import ray  # noqa: TID253  the same


class Scorer:
    """An actor with the graph loaded, as Ray's guide to batch inference has it."""

    def __init__(self, model: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model["onnx"], options, providers=["CPUExecutionProvider"])
        self._model = model

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = np.column_stack([batch[f"f{place}"] for place in range(30)]).astype(self._model["dtype"])
        (found,) = self._session.run([self._model["score"]], {self._model["input"]: rows})
        scores = found[:, -1].astype(np.float64) if found.ndim > 1 else found.astype(np.float64)
        positive = scores > 0.5
        return {
            "id": batch["id"],
            "prediction": positive.astype(np.int64),
            "probability": np.where(positive, scores, 1 - scores),
            "score": scores,
            "model_version": np.full(len(scores), "1"),
        }


def main() -> None:
    task = json.loads(sys.argv[1])
    workers = task["workers"]
    ray.init(num_cpus=workers + 1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    began = time.perf_counter()
    rows = ray.data.read_parquet(f"{task['folder']}/rows.parquet")
    scored = rows.map_batches(
        Scorer, fn_constructor_args=[task["model"]], batch_size=65_536, batch_format="numpy", concurrency=workers
    )
    scored.write_parquet(task["output"])
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
