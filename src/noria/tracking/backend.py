"""What the client works on: an interface with two built-in backends, chosen by the scheme of a tracking URI."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from noria.errors import InvalidInput

if TYPE_CHECKING:
    from noria.tracking.entities import LoggedModel, Metric, Run

GROUP = "noria.tracking_backends"
"""Entry points of this group open further schemes: name = scheme, object = a function of the URI giving a Backend."""

_BUILT_IN = {
    "": "noria.client.local:open_backend",
    "file": "noria.client.local:open_backend",
    "http": "noria.tracking.remote:open_backend",
    "https": "noria.tracking.remote:open_backend",
}
"""By name, not by import: a backend is loaded when it is opened, and a room above this one is never known."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or folder below an artifact address; ``size_bytes`` of a folder is 0."""

    path: str
    is_dir: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table that a run read: its name, the digest of its rows, columns in MLflow's types, what it was read for."""

    name: str
    digest: str
    context: str
    source: str
    columns: Sequence[Mapping[str, object]]
    rows: int

    def document(self) -> dict[str, object]:
        """The entry of MLflow's log-inputs, which is also what a run keeps of it."""
        tags = [{"key": "mlflow.data.context", "value": self.context}] if self.context else []
        dataset = {
            "name": self.name,
            "digest": self.digest,
            "source_type": "noria",
            "source": json.dumps({"uri": self.source}),
            "schema": json.dumps({"mlflow_colspec": list(self.columns)}),
            "profile": json.dumps({"num_rows": self.rows}),
        }
        return {"tags": tags, "dataset": dataset}


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version of a registered model, as a client sees it."""

    name: str
    version: int
    stage: str
    source: str
    run_id: str | None
    logged_model_id: str | None
    description: str
    tags: Mapping[str, str]
    aliases: Sequence[str]


class Backend(Protocol):
    """Where runs, artifacts and versions are kept. Safe to share between threads.

    Every method raises the NoriaError that the server, or the same function in process, refuses with.
    """

    uri: str

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made when it is new. Raises Conflict for a deleted one."""
        ...

    def create_run(self, experiment_id: str, *, name: str, user: str, tags: Mapping[str, str]) -> Run:
        """A new run, started now; without a name, it is given one."""
        ...

    def set_status(self, run_id: str, status: str) -> Run:
        """Set the status; a terminal one ends the run now."""
        ...

    def get_run(self, run_id: str) -> Run:
        """The run of that id."""
        ...

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        at_millis: int = 0,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run in one batch; the metrics share a step and a time (milliseconds since 1970, UTC)."""
        ...

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Record a table that the run read."""
        ...

    def search_runs(
        self, experiment_ids: Sequence[str], *, filter_text: str, order_by: Sequence[str], limit: int
    ) -> list[Run]:
        """At most ``limit`` active runs that meet the filter, in MLflow's grammar."""
        ...

    def metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every value of one metric, by step and time."""
        ...

    def list_files(self, uri: str) -> list[FileEntry]:
        """The entries of the folder at an artifact address, by name; none for what is no folder."""
        ...

    def put_file(self, uri: str, content: bytes | Path) -> None:
        """Store bytes, or the file at a path, under an artifact address."""
        ...

    def get_file(self, uri: str, target: Path) -> None:
        """Write the artifact into the file ``target``, whose folder exists."""
        ...

    def create_logged_model(self, experiment_id: str, *, name: str, run_id: str) -> LoggedModel:
        """Announce a model whose files follow."""
        ...

    def finish_logged_model(self, model_id: str, run_id: str) -> None:
        """Its files are complete: it is ready, and an output of the run."""
        ...

    def get_logged_model(self, model_id: str) -> LoggedModel:
        """The logged model of that id."""
        ...

    def register(
        self, name: str, source: str, *, run_id: str | None, logged_model_id: str | None, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """Add a version to the model, making the model when it is new."""
        ...

    def find_version(self, name: str, which: str) -> RegisteredVersion:
        """The version ``which`` names: ``3``, ``Production`` (the newest there), ``@alias`` or ``latest``."""
        ...

    def transition_stage(self, name: str, version: int, stage: str, reason: str) -> RegisteredVersion:
        """Move a version under the project's policy."""
        ...

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point the alias at the version."""
        ...

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Add or replace a tag of a version."""
        ...

    def close(self) -> None:
        """Give connections back. The backend may be used again, and then opens new ones."""
        ...


def open_backend(uri: str) -> Backend:
    """The backend for a tracking URI; an empty one means the project around the working directory.

    Raises InvalidInput for a scheme nobody serves.
    """
    return cast(Backend, find_backend(uri)()(uri))


def find_backend(uri: str) -> Callable[[], Callable[[str], object]]:
    """What loads the opener of a tracking URI's backends; nothing is loaded yet.

    Raises InvalidInput for a scheme nobody serves.
    """
    scheme = uri.partition(":")[0] if "://" in uri or uri.startswith("file:") else ""
    if (name := _BUILT_IN.get(scheme)) is not None:
        module, _, function = name.partition(":")
        return lambda: cast(Callable[[str], object], getattr(import_module(module), function))
    from importlib.metadata import entry_points  # loads the email package: not for every import of the client

    for point in entry_points(group=GROUP, name=scheme):
        return point.load
    raise InvalidInput(
        f"nothing serves tracking URIs such as {uri!r}",
        remedy=f"Use http://, https://, a project's folder, or install what offers the scheme {scheme!r} to {GROUP}.",
    )
