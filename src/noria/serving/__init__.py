"""The data plane: from a request's bytes to an answer, and to the prediction log after it."""

from noria.serving.core import DataPlane, PredictionRequest
from noria.serving.runtime import Runtime, load_runtime

__all__ = ["DataPlane", "PredictionRequest", "Runtime", "load_runtime"]
