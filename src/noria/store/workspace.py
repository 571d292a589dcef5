"""One project's state, opened: database, artifacts, and the folders the processes share."""

from __future__ import annotations

import shutil
from pathlib import Path

from noria.config import ServerSettings
from noria.store.blobs import BlobStore, open_blobs
from noria.store.database import Database
from noria.store.keyvalue import KeyValueStore

ARTIFACT_SCHEME = "mlflow-artifacts:/"


class Workspace:
    """Opens what ``settings.store`` names, relative to the project's folder, and migrates the database."""

    def __init__(self, folder: Path, settings: ServerSettings) -> None:
        self.folder = (folder / settings.store.folder).resolve()
        self.database = Database(_absolute(settings.store.database, folder))
        self.database.migrate()
        self.artifacts = open_blobs(
            settings.store.artifacts, folder=self.folder / "artifacts", cache=self.folder / "cache" / "artifacts"
        )
        self.prediction_log = self.folder / "predictions"
        self.online_path = self.folder / "online" / "features.db"

    def route_file(self, deployment: str) -> Path:
        """The file gateways of ``deployment`` read their route table from."""
        return self.folder / "routes" / f"{deployment}.json"

    def open_anchors(self, url: str) -> BlobStore:
        """The place of the audit chain's anchors; a relative one starts at the project's folder."""
        return open_blobs(url, folder=self.folder / "anchors", cache=self.folder / "cache" / "anchors")

    def open_online(self, *, fresh: bool = False) -> KeyValueStore:
        """A handle on the online features; ``fresh`` empties them first."""
        if fresh and self.online_path.parent.exists():
            shutil.rmtree(self.online_path.parent)
        return KeyValueStore(self.online_path)


def artifact_uri(key: str) -> str:
    """The address under which any MLflow client finds what lies at ``key`` below the artifact root."""
    return ARTIFACT_SCHEME + key


def artifact_key(uri: str) -> str:
    """The key below the artifact root that ``uri`` means."""
    return uri.removeprefix(ARTIFACT_SCHEME).lstrip("/")


def _absolute(url: str, folder: Path) -> str:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url.startswith(prefix + "/"):
        return url
    return prefix + str((folder / url.removeprefix(prefix)).resolve())
