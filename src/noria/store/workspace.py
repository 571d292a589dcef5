"""One project's state, opened: database, artifacts, and the folders the processes share."""

from __future__ import annotations

from pathlib import Path

from noria.config import ServerSettings
from noria.errors import InvalidConfig
from noria.store.blobs import BlobStore, open_blobs
from noria.store.database import Database
from noria.store.keyvalue import SQLITE_FILE, KeyValueStore, open_keyvalue

ARTIFACT_SCHEME = "mlflow-artifacts:/"


class Workspace:
    """Opens what ``settings.store`` names, relative to the project's folder, and migrates the database.

    Without ``migrate`` the database is not touched until it is used: it may be away for now. A workspace may have no
    database at all: that of a gateway that serves its route files.
    """

    def __init__(self, folder: Path, settings: ServerSettings, *, migrate: bool = True) -> None:
        self.folder = (folder / settings.store.folder).resolve()
        url = settings.store.database
        self._database = Database(_absolute(url, folder)) if url else None
        if migrate and self._database is not None:
            self._database.migrate()
        self.artifacts = open_blobs(
            settings.store.artifacts, folder=self.folder / "artifacts", cache=self.folder / "cache" / "artifacts"
        )
        self.prediction_log = self.folder / "predictions"
        self.online_url = _absolute(settings.features.online or f"sqlite:///{self.folder}/online/{SQLITE_FILE}", folder)

    @property
    def has_database(self) -> bool:
        """Whether there are records."""
        return self._database is not None

    @property
    def database(self) -> Database:
        """The records. Raises InvalidConfig where there are none."""
        if self._database is None:
            raise InvalidConfig(
                "store.database is empty: this folder only serves predictions of what it packs",
                remedy="Besides `noria serve` and `noria predict batch --deployment NAME`, run commands in the project "
                "that the model comes from.",
            )
        return self._database

    @property
    def route_folder(self) -> Path:
        """Where gateways look for route tables."""
        return self.folder / "routes"

    def route_file(self, deployment: str) -> Path:
        """The file gateways of ``deployment`` read their route table from."""
        return self.route_folder / f"{deployment}.json"

    def open_anchors(self, url: str) -> BlobStore:
        """The place of the audit chain's anchors; a relative one starts at the project's folder."""
        return open_blobs(url, folder=self.folder / "anchors", cache=self.folder / "cache" / "anchors")

    def open_online(self, *, fresh: bool = False) -> KeyValueStore:
        """A handle on the online features; ``fresh`` empties them first."""
        store = open_keyvalue(self.online_url, self.folder)
        if fresh:
            store.delete(b"")
        return store


def artifact_uri(key: str) -> str:
    """The address under which any MLflow client finds what lies at ``key`` below the artifact root."""
    return ARTIFACT_SCHEME + key


def artifact_key(uri: str) -> str:
    """The key below the artifact root that ``uri`` means."""
    return uri.removeprefix(ARTIFACT_SCHEME).lstrip("/")


def _absolute(url: str, folder: Path) -> str:
    for prefix in ("sqlite:///", "lmdb:///"):
        if url.startswith(prefix) and not url.startswith(prefix + "/"):
            return prefix + str((folder / url.removeprefix(prefix)).resolve())
    return url
