"""Noria: production machine learning as one closed, audited loop."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noria.data.observations import Observations
    from noria.features.definitions import Entity, FeatureView
    from noria.features.sources import Field
    from noria.schema import Column

__version__ = "0.1.0"

__all__ = ["Column", "Entity", "FeatureView", "Field", "Observations", "__version__"]

_HOMES = {
    "Column": "noria.schema",
    "Entity": "noria.features",
    "FeatureView": "noria.features",
    "Field": "noria.features",
    "Observations": "noria.data",
}


# ONNX Runtime, MLflow and Ray tell their makers what runs here; who wants that sets these before.
_SILENT = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
for _name, _value in _SILENT.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that ``import noria`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'noria' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names too, for completion and ``help``."""
    return sorted({*globals(), *__all__})
