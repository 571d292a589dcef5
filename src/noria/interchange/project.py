"""A Noria project as one end of a move: read from its own database and artifacts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from noria.errors import Unavailable
from noria.interchange.side import File
from noria.registry import ModelVersion, RegisteredModel, list_versions
from noria.registry.models import aliases, list_models
from noria.store.blobs import BlobStore, clean_key
from noria.store.workspace import ARTIFACT_SCHEME, Workspace, artifact_key
from noria.tracking import experiments, logged_models, metrics, run_search
from noria.tracking.entities import Experiment, LoggedModel, Metric, Run

_PAGE = 500


class NoriaProject:
    """One end of a move."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.name = str(workspace.folder)

    def experiments(self) -> Sequence[Experiment]:
        """All experiments, oldest first."""
        with self.workspace.database.read() as tx:
            return sorted(experiments.list_all(tx), key=lambda experiment: int(experiment.experiment_id))

    def runs(self, experiment: Experiment) -> Iterator[Run]:
        """All runs of the experiment, oldest first."""
        for start in range(0, sys.maxsize, _PAGE):
            with self.workspace.database.read() as tx:
                found = run_search.search_runs(
                    tx,
                    [experiment.experiment_id],
                    filter_text="",
                    order_by=["attributes.start_time ASC"],
                    view="ALL",
                    limit=_PAGE,
                    offset=start,
                )
            yield from found
            if len(found) < _PAGE:
                return

    def history(self, run: Run) -> Sequence[Metric]:
        """Every value of every metric, key by key."""
        with self.workspace.database.read() as tx:
            keys = sorted(run.metrics)
            return [point for key in keys for point in metrics.history(tx, run.run_id, key, limit=sys.maxsize)]

    def logged_models(self, experiment: Experiment) -> Sequence[LoggedModel]:
        """The logged models of the experiment."""
        with self.workspace.database.read() as tx:
            return logged_models.search(tx, [experiment.experiment_id])

    def models(self) -> Sequence[RegisteredModel]:
        """All registered models by name."""
        with self.workspace.database.read() as tx:
            return list_models(tx)

    def aliases(self, model: str) -> Mapping[str, int]:
        """Alias → version."""
        with self.workspace.database.read() as tx:
            return aliases(tx, model)

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """The versions by number."""
        with self.workspace.database.read() as tx:
            return list_versions(tx, model)

    def files(self, uri: str) -> Sequence[File]:
        """The files below ``uri``, by path. Raises Unavailable for a URI outside of the artifact root."""
        if "://" in uri or (":" in uri and not uri.startswith(ARTIFACT_SCHEME)):
            raise Unavailable(f"{uri} is not among Noria's artifacts", remedy="Its files were left where they are.")
        return _list_files(self.workspace.artifacts, artifact_key(uri))

    def read(self, uri: str, path: str) -> bytes:
        """One file below ``uri``."""
        return self.workspace.artifacts.read(f"{artifact_key(uri)}/{path}")


def _list_files(blobs: BlobStore, key: str) -> list[File]:
    """The files below ``key``, by path."""
    root = clean_key(key)
    found, folders = [], [root]
    while folders:
        for entry in blobs.entries(folders.pop()):
            if entry.size is None:
                folders.append(entry.key)
            else:
                found.append(File(PurePosixPath(entry.key).relative_to(root).as_posix(), entry.size))
    return sorted(found, key=_path)


def _path(file: File) -> str:
    return file.path
