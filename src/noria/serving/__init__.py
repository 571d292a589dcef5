"""The data plane: from a request's bytes to an answer, and to the prediction log."""

from noria.serving.batcher import Limits
from noria.serving.core import Block, DataPlane
from noria.serving.inputs import PredictionRequest
from noria.serving.items import Prediction

__all__ = ["Block", "DataPlane", "Limits", "Prediction", "PredictionRequest"]
