"""A LitServe service: ``python serving_litserve.py PORT``. LitServe reads the annotations, so they are no texts."""

import sys
from typing import Any

import litserve
import numpy as np
from serving_models import Forest


class ForestApi(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = Forest()

    def decode_request(self, request: dict[str, Any]) -> Any:
        return np.array(request["rows"], dtype=np.float64)

    def predict(self, rows: Any) -> Any:
        return self.model.predict_proba(rows)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(ForestApi(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
