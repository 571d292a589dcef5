"""The data plane: from a request's bytes to an answer, and to the prediction log."""

from noria.serving.core import DataPlane, Prediction
from noria.serving.inputs import PredictionRequest
from noria.serving.runtime import Runtime, load_runtime

__all__ = ["DataPlane", "Prediction", "PredictionRequest", "Runtime", "load_runtime"]
