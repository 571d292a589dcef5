"""An MLServer runtime on ONNX Runtime, written as its documentation says."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from serving_models import Forest


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self.forest = Forest()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("predict_proba", self.forest.predict_proba(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
