"""Runtimes: what loads a model's folder and scores rows, by the name in its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from noria.errors import MissingExtra
from noria.optimize.bundle import Bundle
from noria.serving.runtimes.base import (
    WAITED_FOR_UNTIL,
    Floats,
    Hung,
    Labelled,
    Loader,
    Rows,
    Runtime,
    Tensors,
    columns_of,
)

__all__ = [
    "WAITED_FOR_UNTIL",
    "Floats",
    "Hung",
    "Labelled",
    "Loader",
    "Rows",
    "Runtime",
    "Tensors",
    "columns_of",
    "load",
]

GROUP = "noria.runtimes"

_BUILT_IN: Mapping[str, str] = {
    "onnx": "noria.serving.runtimes.onnx:OnnxRuntime",
    "lightgbm": "noria.serving.runtimes.boosters:BoosterRuntime",
    "xgboost": "noria.serving.runtimes.boosters:BoosterRuntime",
    "pyfunc": "noria.serving.runtimes.pyfunc:PyfuncRuntime",
    "chain": "noria.serving.runtimes.chain:ChainRuntime",
    "ensemble": "noria.serving.runtimes.ensemble:EnsembleRuntime",
    "remote": "noria.serving.runtimes.remote:RemoteRuntime",
}


def load(folder: Path, bundle: Bundle) -> Runtime:
    """Load a model's folder with the runtime its bundle names.

    Raises MissingExtra when nobody provides that runtime, or it cannot be imported; whatever the runtime raises goes
    through.
    """
    module, _, name = _BUILT_IN.get(bundle.runtime, "").partition(":")
    loader: Loader | None = getattr(import_module(module), name) if module else _entry_point(bundle.runtime)
    if loader is None:
        raise MissingExtra(
            f"no installed package provides the runtime {bundle.runtime!r}",
            remedy=f"Install the one that has it as an entry point of {GROUP!r}; built in are: {', '.join(_BUILT_IN)}.",
        )
    return loader(folder, bundle)


def _entry_point(name: str) -> Loader | None:
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    try:
        return None if found is None else found.load()
    except (ImportError, AttributeError) as error:
        raise MissingExtra(
            f"the runtime {name!r} cannot be imported: {error}",
            remedy=f"Mend the package whose entry point of {GROUP!r} it is, or install what that needs.",
        ) from None
