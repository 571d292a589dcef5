"""What a saved model says of itself in its MLmodel file: what it takes and gives, and by which algorithm."""

from __future__ import annotations

import contextlib
import json
import pickletools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from noria.errors import InvalidInput, NotFound
from noria.registry.entities import Signature
from noria.store.blobs import BlobStore
from noria.store.workspace import ARTIFACT_SCHEME, artifact_key

MLMODEL_FILE = "MLmodel"
_LARGEST_BYTES = 4 * 1024 * 1024
_PICKLES = ("mlflow.sklearn",)
"""Loader modules whose model is one pickle, which begins with its class."""


@dataclass(frozen=True, slots=True)
class Description:
    """Empty where the files say nothing."""

    signature: Signature = field(default_factory=Signature)
    algorithm: str = ""


def describe(blobs: BlobStore, place: str) -> Description:
    """What the MLmodel file at an artifact address says; nothing of files elsewhere, or without one that is readable.

    Nothing is run: of a pickle only the name of the class it begins with is read.
    """
    if not place.startswith(ARTIFACT_SCHEME):
        return Description()
    folder = artifact_key(place).rstrip("/")
    document = _document(_head(blobs, f"{folder}/{MLMODEL_FILE}"))
    flavors = {name: flavor for name, flavor in _mapping(document, "flavors").items() if isinstance(flavor, dict)}
    return Description(_signature(_mapping(document, "signature")), _algorithm(blobs, folder, flavors))


def _document(content: bytes) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(content) if len(content) <= _LARGEST_BYTES else None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _head(blobs: BlobStore, key: str) -> bytes:
    """The file's first piece; empty when there is none."""
    try:
        return next(iter(blobs.stream(key)[1]), b"")
    except (NotFound, InvalidInput):
        return b""


def _signature(written: Mapping[str, Any]) -> Signature:
    inputs = [*_columns(written, "inputs"), *_columns(written, "params", prefix="params.")]
    outputs = [[name, kind] for name, kind, _ in _columns(written, "outputs")]
    return Signature(
        tuple((name, kind) for name, kind, _ in inputs),
        json.dumps(outputs) if outputs else "",
        tuple(name for name, _, required in inputs if required),
    )


def _columns(written: Mapping[str, Any], part: str, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """(name, or place where it has none; kind; whether it must be given) of each column, tensor or parameter."""
    try:
        columns = json.loads(written.get(part) or "[]")
    except (ValueError, TypeError):
        columns = []
    for place, column in enumerate(columns if isinstance(columns, list) else []):
        if isinstance(column, dict):
            required = bool(column.get("required", "default" not in column))
            yield f"{prefix}{column.get('name', place)}", _kind(column), required


def _kind(column: Mapping[str, Any]) -> str:
    """``double``, ``tensor float64 [-1, 3]``; of what is built of others, its JSON."""
    own = {key: value for key, value in column.items() if key not in ("name", "required", "default") and value}
    spec = _mapping(own, "tensor-spec")
    if spec:
        return f"tensor {spec.get('dtype')} {spec.get('shape')}"
    return str(own.get("type")) if set(own) == {"type"} else json.dumps(own, sort_keys=True)


def _algorithm(blobs: BlobStore, folder: str, flavors: Mapping[str, Mapping[str, Any]]) -> str:
    """The model's class, or the module that loads it."""
    named = next((str(flavor["model_class"]) for flavor in flavors.values() if flavor.get("model_class")), "")
    generic = flavors.get("python_function", {})
    loader, file = str(generic.get("loader_module", "")), str(generic.get("model_path", ""))
    if not named and loader in _PICKLES and file:
        named = _pickled_class(_head(blobs, f"{folder}/{file}"))
    return (named.rpartition(".")[2] or loader)[:250]


def _pickled_class(head: bytes) -> str:
    """The first class that a pickle looks up; empty for what is none."""
    return next((name for name in _looked_up(head) if not name.startswith(("copyreg.", "copy_reg."))), "")


def _looked_up(head: bytes) -> Iterator[str]:
    texts: list[str] = []
    with contextlib.suppress(ValueError, IndexError):  # cut off, or no pickle
        for code, argument, _ in pickletools.genops(head):
            if code.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif code.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif "UNICODE" in code.name:
                texts.append(str(argument))


def _mapping(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}
