"""A KServe model server by its SDK: ``python serving_kserve.py --http_port=PORT ...``."""

from __future__ import annotations

import argparse
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.utils import generate_uuid
from serving_models import Forest


class ForestModel(Model):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.forest = Forest()
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:  # noqa: ARG002
        found = self.forest.predict_proba(payload.inputs[0].as_numpy())
        output = InferOutput("predict_proba", list(found.shape), "FP64", found.ravel().tolist())
        return InferResponse(payload.id or generate_uuid(), self.name, [output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.parse_known_args()
    ModelServer().start([ForestModel("forest")])
