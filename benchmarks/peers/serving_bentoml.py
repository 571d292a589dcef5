"""BentoML services: one call a request, and with BentoML's own adaptive batching."""

from __future__ import annotations

import bentoml
import numpy as np
from serving_models import Forest as Model


@bentoml.service
class Single:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)


@bentoml.service
class Batched:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)
