"""The backend in process: a project's folder, through the functions the server calls, under the same policies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from noria import audit
from noria.clock import Clock, SystemClock, to_millis
from noria.config import Settings, load_settings, nearest_project
from noria.errors import Conflict, InvalidConfig, InvalidInput, NotFound, Unavailable
from noria.ids import process_user
from noria.project_files import CONFIG_FILE
from noria.registry import ModelVersion, Policies, get_version, version_in_stage
from noria.registry.models import aliases, get_model, set_alias
from noria.registry.protection import require_open
from noria.registry.registration import Saved, register_saved
from noria.registry.semantic import SEMANTIC_TAG
from noria.registry.stages import parse_stage, request_transition
from noria.registry.versions import latest_version, update_version
from noria.store.database import Transaction
from noria.store.workspace import ARTIFACT_SCHEME, Workspace, artifact_key, artifact_uri
from noria.tracking import experiments, logged_models, metrics, runs
from noria.tracking.backend import Backend, Dataset, FileEntry, RegisteredVersion
from noria.tracking.entities import LoggedModel, Metric, Run
from noria.tracking.run_search import search_runs
from noria.tracking.writer import Batch, write_all

_ROOT = artifact_uri("")
_HISTORY_LIMIT = 10_000_000


def open_backend(uri: str) -> Backend:
    """The project in the folder that ``uri`` names, or around the working directory when it is empty.

    Raises InvalidConfig when there is none.
    """
    folder = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri).expanduser().resolve()
    found = folder if uri else nearest_project(folder)
    if found is None:
        raise InvalidConfig(
            f"no {CONFIG_FILE} in {folder} or above",
            remedy="Change to a project, make one with `noria init`, or name a server with set_tracking_uri.",
        )
    return LocalBackend(found, load_settings(found))


class LocalBackend:
    """A project. Each call is one transaction; the database carries what the processes must agree on."""

    def __init__(self, folder: Path, settings: Settings, clock: Clock | None = None) -> None:
        self.uri = str(folder)
        self._workspace = Workspace(folder, settings)
        self._database = self._workspace.database
        self._policies = Policies.from_settings(settings.policies, accounts=settings.access.enabled)
        self._clock = clock or SystemClock()
        self._actor = process_user()
        with self._database.write() as tx:
            experiments.ensure_default(tx, artifact_root=_ROOT, at=self._clock.now())

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made when it is new. Raises Conflict for a deleted one."""
        with self._database.write() as tx:
            found = experiments.get_or_create(tx, name, artifact_root=_ROOT, at=self._clock.now())
        if found.lifecycle_stage == experiments.DELETED:
            raise Conflict(f"experiment {name!r} is deleted", remedy="Restore it, or choose another name.")
        return found.experiment_id

    def create_run(self, experiment_id: str, *, name: str, user: str, tags: Mapping[str, str]) -> Run:
        """A new run, started now; without a name, it is given one."""
        with self._database.write() as tx:
            return runs.start(tx, experiment_id, name=name, user=user, at=self._clock.now(), tags=tags)

    def set_status(self, run_id: str, status: str) -> Run:
        """Set the status; a terminal one ends the run now."""
        with self._database.write() as tx:
            done = runs.finish(tx, run_id, status, at=self._clock.now())
        audit.settle_all(self._database)
        return done

    def get_run(self, run_id: str) -> Run:
        """The run of that id."""
        with self._database.read() as tx:
            return runs.get(tx, run_id)

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
        """Add to a run: all of it in one transaction, or nothing."""
        at = at_millis or to_millis(self._clock.now())
        values = [Metric(key, value, at, step) for key, value in (metrics or {}).items()]
        with self._database.write() as tx:
            for fault in write_all(tx, [Batch(run_id, values, params or {}, tags or {})]):
                if fault is not None:
                    raise fault

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Record a table that the run read."""
        with self._database.write() as tx:
            runs.require(tx, run_id)
            document = dataset.document()
            runs.log_dataset(tx, run_id, dataset.name, dataset.digest, document, context=dataset.context)

    def search_runs(
        self, experiment_ids: Sequence[str], *, filter_text: str, order_by: Sequence[str], limit: int
    ) -> list[Run]:
        """At most ``limit`` active runs that meet the filter."""
        with self._database.read() as tx:
            return search_runs(tx, experiment_ids, filter_text=filter_text, order_by=order_by, limit=limit)

    def metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every value of one metric, by step and time."""
        with self._database.read() as tx:
            runs.get(tx, run_id)
            return metrics.history(tx, run_id, key, limit=_HISTORY_LIMIT)

    def list_files(self, uri: str) -> list[FileEntry]:
        """The entries of the folder at an artifact address, by name."""
        found = self._workspace.artifacts.entries(_key(uri))
        return [FileEntry(PurePosixPath(entry.key).name, entry.is_folder, entry.size or 0) for entry in found]

    def put_file(self, uri: str, content: bytes | Path) -> None:
        """Store bytes, or the file at a path, under an artifact address."""
        key, content = _key(uri), content if isinstance(content, bytes) else content.read_bytes()
        with self._database.read() as tx:
            require_open(tx, uri)
        self._workspace.artifacts.write(key, content)
        detail = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        with self._database.append() as tx:
            audit.note(tx, "artifact.write", f"artifact:{key}", detail=detail)

    def get_file(self, uri: str, target: Path) -> None:
        """Write the artifact into the file ``target``."""
        with target.open("wb") as file:
            file.writelines(self._workspace.artifacts.stream(_key(uri))[1])

    def create_logged_model(self, experiment_id: str, *, name: str, run_id: str) -> LoggedModel:
        """Announce a model whose files follow."""
        with self._database.write() as tx:
            return logged_models.create(
                tx,
                experiment_id,
                name=name,
                source_run_id=run_id,
                model_type="",
                params={},
                tags={},
                at=self._clock.now(),
            )

    def finish_logged_model(self, model_id: str, run_id: str) -> None:
        """Its files are complete: it is ready, and an output of the run."""
        with self._database.write() as tx:
            runs.require(tx, run_id)
            logged_models.change(tx, model_id, at=self._clock.now(), status=logged_models.READY)
            runs.log_output(tx, run_id, model_id, 0)

    def get_logged_model(self, model_id: str) -> LoggedModel:
        """The logged model of that id."""
        with self._database.read() as tx:
            return logged_models.get(tx, model_id)

    def register(
        self, name: str, source: str, *, run_id: str | None, logged_model_id: str | None, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """Add a version to the model, making the model when it is new: both, or neither."""
        made = register_saved(
            self._workspace,
            name,
            Saved(source, run_id, logged_model_id, tags),
            policies=self._policies,
            at=self._clock.now(),
            actor=self._actor,
        )
        with self._database.read() as tx:
            return _version(tx, made)

    def find_version(self, name: str, which: str) -> RegisteredVersion:
        """The version that ``3``, ``Production``, ``@alias`` or ``latest`` names."""
        with self._database.read() as tx:
            get_model(tx, name)
            return _version(tx, _find(tx, name, which))

    def transition_stage(self, name: str, version: int, stage: str, reason: str) -> RegisteredVersion:
        """Move a version under the project's policy; a refusal is audited."""
        moved = request_transition(
            self._database,
            name,
            version,
            parse_stage(stage),
            policies=self._policies,
            at=self._clock.now(),
            actor=self._actor,
            reason=reason,
        )
        with self._database.read() as tx:
            return _version(tx, moved)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point the alias at the version."""
        with self._database.write() as tx:
            set_alias(tx, name, alias, version, at=self._clock.now(), actor=self._actor)

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Add or replace a tag of a version."""
        with self._database.write() as tx:
            tags = {**get_version(tx, name, version).tags, key: value}
            update_version(tx, name, version, at=self._clock.now(), actor=self._actor, tags=tags)

    def close(self) -> None:
        """Give the database's connections back, with everything written in the audit chain, if it can be reached."""
        with suppress(Unavailable):  # the notes are kept, and whoever writes next moves them
            audit.settle_all(self._database)
        self._database.close()


def _find(tx: Transaction, name: str, which: str) -> ModelVersion:
    if which.startswith("@"):
        number = aliases(tx, name).get(which[1:])
        if number is None:
            raise NotFound(f"model {name!r} has no alias {which[1:]!r}", remedy="Set it first.")
        return get_version(tx, name, number)
    if which.isdecimal():
        return get_version(tx, name, int(which))
    latest = which.lower() == "latest"
    found = latest_version(tx, name) if latest else version_in_stage(tx, name, parse_stage(which))
    if found is None:
        raise NotFound(f"model {name!r} has no version in {which}", remedy="Move one there, or name its number.")
    return found


def _version(tx: Transaction, version: ModelVersion) -> RegisteredVersion:
    pointing = [alias for alias, number in aliases(tx, version.model).items() if number == version.version]
    return RegisteredVersion(
        name=version.model,
        version=version.version,
        stage=version.stage.value,
        source=version.source,
        run_id=version.run_id,
        logged_model_id=version.logged_model_id,
        description=version.description,
        tags={**version.tags, SEMANTIC_TAG: version.semantic_version},
        aliases=pointing,
    )


def _key(uri: str) -> str:
    """The key of an artifact address. Raises InvalidInput for one that lies outside of the project."""
    if not uri.startswith(ARTIFACT_SCHEME):
        raise InvalidInput(f"{uri!r} lies outside of the project's artifacts", remedy="Fetch it by other means.")
    return artifact_key(uri)
