"""The fluent verbs of models: log one in MLflow's format, register, move and load it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noria.errors import InvalidInput, NotFound
from noria.tracking.backend import Backend, RegisteredVersion
from noria.tracking.client import download, join, scratch_folder, upload_folder
from noria.tracking.mlmodel import MLMODEL_FILE, read_model, write_mlmodel
from noria.tracking.session import backend, target
from noria.tracking.signature import infer_signature

_DEEPEST = 5
"""Addresses that name addresses: runs:/ → models:/m-… → files. More than this goes in a circle."""


@dataclass(frozen=True, slots=True)
class LoggedModelInfo:
    """A model that was logged; ``model_uri`` is what load_model takes, here and in MLflow."""

    name: str
    model_id: str
    model_uri: str
    run_id: str
    artifact_uri: str
    registered: RegisteredVersion | None


def log_model(
    model: Any,
    name: str = "model",
    *,
    registered_model_name: str | None = None,
    input_example: Any = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> LoggedModelInfo:
    """Save an object that has ``predict`` with the run, so that Noria and MLflow load it; register it when named.

    An ``input_example`` (polars or pandas frame, numpy array, rows first) gives the model its signature. ``tags`` are
    those of the registered version. Raises InvalidInput for what cannot predict, PolicyRefused when the policy forbids
    the version: the model is logged then, not registered.
    """
    if not callable(getattr(model, "predict", None)):
        raise InvalidInput(f"{type(model).__name__} has no predict method", remedy="Wrap it in a class that has one.")
    signature = None if input_example is None else infer_signature(model, input_example)
    used, run = target(run_id)
    logged = used.create_logged_model(used.get_run(run).experiment_id, name=name, run_id=run)
    with tempfile.TemporaryDirectory(prefix="noria-") as scratch:
        folder, now = Path(scratch), datetime.now(UTC)
        write_mlmodel(folder, model, signature, at=now, run_id=run, model_id=logged.model_id, name=name)
        upload_folder(used, folder, logged.artifact_uri)
    used.finish_logged_model(logged.model_id, run)
    uri = f"models:/{logged.model_id}"
    version = None if registered_model_name is None else _register(used, uri, registered_model_name, tags)
    return LoggedModelInfo(name, logged.model_id, uri, run, logged.artifact_uri, version)


def load_model(model_uri: str | Path) -> Any:
    """The object that was logged, from ``runs:/RUN/NAME``, ``models:/NAME/VERSION``, ``models:/NAME/Production``,
    ``models:/NAME/latest``, ``models:/NAME@ALIAS``, ``models:/m-ID`` or a local folder.

    Loading runs code that the model's author chose: load only models of people you trust. Raises NotFound, or
    MissingExtra for a flavor that only MLflow reads.
    """
    text = str(model_uri)
    if ":/" not in text:
        return read_model(Path(text))
    used = backend()
    with tempfile.TemporaryDirectory(prefix="noria-") as scratch:
        return read_model(download(used, resolve(used, text), Path(scratch) / "model"))


def download_artifacts(
    artifact_uri: str | None = None,
    *,
    run_id: str | None = None,
    artifact_path: str | None = None,
    dst_path: str | Path | None = None,
) -> Path:
    """Fetch a file or folder into ``dst_path`` (a new temporary folder by default); gives where it is.

    Named by an address as load_model takes them, or by ``run_id`` and a path in it. Raises NotFound.
    """
    used = backend()
    if (artifact_uri is None) == (run_id is None):
        raise InvalidInput("name what to download", remedy="Give either artifact_uri or run_id.")
    if artifact_uri is None:
        artifact_uri = join(used.get_run(str(run_id)).artifact_uri, artifact_path)
    return download(used, resolve(used, artifact_uri), scratch_folder() if dst_path is None else Path(dst_path))


def register_model(model_uri: str, name: str, *, tags: Mapping[str, str] | None = None) -> RegisteredVersion:
    """Make a version of a logged model (``runs:/RUN/NAME`` or ``models:/m-ID``), and its model when that is new.

    Raises PolicyRefused with every condition that is not met.
    """
    return _register(backend(), model_uri, name, tags)


def get_model_version(name: str, version: int | str) -> RegisteredVersion:
    """The version of that number, in that stage (the newest), ``@alias``, or ``latest``. Raises NotFound."""
    return backend().find_version(name, str(version))


def transition_stage(name: str, version: int | str, stage: str, *, reason: str = "") -> RegisteredVersion:
    """Move a version to None, Staging, Production or Archived.

    Raises PolicyRefused with every condition that is not met; the refusal is audited.
    """
    return backend().transition_stage(name, int(version), stage, reason)


def set_alias(name: str, alias: str, version: int | str) -> None:
    """Point an alias at a version, as ``models:/NAME@ALIAS`` reads it. Raises NotFound."""
    backend().set_alias(name, alias, int(version))


def set_version_tag(name: str, version: int | str, key: str, value: object) -> None:
    """Add or replace a tag of a version, as text. Raises NotFound."""
    backend().set_version_tag(name, int(version), key, str(value))


def _register(used: Backend, uri: str, name: str, tags: Mapping[str, str] | None) -> RegisteredVersion:
    files, model_id = resolve(used, uri), _logged_model_of(used, uri)
    if not any(entry.path == MLMODEL_FILE for entry in used.list_files(files)):
        raise NotFound(f"there is no model at {uri!r}", remedy="Log one with log_model first.")
    source = files if model_id is None else f"models:/{model_id}"
    run_id = _split_run(uri)[0] if uri.startswith("runs:/") else None
    if model_id is not None:
        run_id = used.get_logged_model(model_id).source_run_id
    texts = {key: str(value) for key, value in (tags or {}).items()}
    return used.register(name, source, run_id=run_id, logged_model_id=model_id, tags=texts)


def resolve(used: Backend, uri: str) -> str:
    """The artifact address behind a ``runs:/`` or ``models:/`` one; another is given back as it is."""
    for _ in range(_DEEPEST):
        if uri.startswith("runs:/"):
            uri = _in_run(used, uri)
        elif uri.startswith("models:/"):
            uri = _of_model(used, uri)
        else:
            return uri
    raise InvalidInput(f"{uri!r} leads in a circle", remedy="Register the model again.")


def _in_run(used: Backend, uri: str) -> str:
    """A path in the run's own artifacts, else the model of that name that the run logged."""
    run_id, path = _split_run(uri)
    address = join(used.get_run(run_id).artifact_uri, path)
    model_id = None if used.list_files(address) else _logged_model_of(used, uri)
    return address if model_id is None else used.get_logged_model(model_id).artifact_uri


def _of_model(used: Backend, uri: str) -> str:
    if (model_id := _logged_model_of(used, uri)) is not None:
        return used.get_logged_model(model_id).artifact_uri
    name, at, alias = uri.removeprefix("models:/").strip("/").partition("@")
    name, _, which = (name, at, at + alias) if at else name.rpartition("/")
    if not name or not which:
        raise InvalidInput(f"{uri!r} names no version", remedy="Write models:/NAME/VERSION or models:/NAME@ALIAS.")
    return used.find_version(name, which).source


def _logged_model_of(used: Backend, uri: str) -> str | None:
    """The id of the logged model that an address names, or None."""
    name = uri.removeprefix("models:/").strip("/")
    if uri.startswith("models:/"):
        return name if name.startswith("m-") and "/" not in name and "@" not in name else None
    if not uri.startswith("runs:/"):
        return None
    run_id, path = _split_run(uri)
    named = [model_id for model_id, _ in used.get_run(run_id).model_outputs]
    return next((model_id for model_id in reversed(named) if used.get_logged_model(model_id).name == path), None)


def _split_run(uri: str) -> tuple[str, str]:
    run_id, _, path = uri.removeprefix("runs:/").strip("/").partition("/")
    return run_id, path
