"""From MLflow into a Noria project.

Everything is written in small steps, each of which may be repeated: a run carries ``noria.imported_from`` from its
first row on and ``noria.imported_at`` once it is whole, so that an import that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

from noria import audit
from noria.clock import Clock, iso
from noria.errors import NoriaError, NotFound, Unavailable
from noria.ids import ExperimentId, derived_id
from noria.interchange.project import NoriaProject
from noria.interchange.report import Hash, Progress, Report, View, compare
from noria.interchange.side import IMPORTED_AT, IMPORTED_FROM, Side
from noria.registry import ModelVersion, RegisteredModel
from noria.registry.imports import import_model, import_version
from noria.registry.models import aliases, find_model, set_alias
from noria.registry.versions import list_versions
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key, artifact_uri
from noria.tracking import experiments, imports, logged_models, runs
from noria.tracking.entities import ENDED, Experiment, LoggedModel, Run

_METRICS_AT_ONCE = 10_000
_LOCAL_SCHEMES = ("", "file", "mlflow-artifacts")


def import_mlflow(
    workspace: Workspace, source: Side, *, origin: str, clock: Clock, actor: str, progress: Progress
) -> Report:
    """Copy all of ``source`` that is not here yet, then compare both. Raises Unavailable when the source goes away.

    ``origin`` is the name under which what comes from this source is known here. An item that is here already but came
    from elsewhere is left alone and listed as refused.
    """
    moving = _Import(workspace, source, origin, clock, actor, Report(source.name, str(workspace.folder)), {})
    found = source.experiments()
    for number, experiment in enumerate(found):
        progress(f"experiment {experiment.name}", number, len(found))
        tell = partial(progress, done=number, of=len(found))
        moving.attempt(partial(moving.experiment, experiment, tell), f"experiment {experiment.name}")
    models = source.models()
    for number, model in enumerate(models):
        progress(f"model {model.name}", number, len(models))
        moving.model(model)
    compare(moving.report, moving.source_view(), moving.target_view(), progress)
    moving.record()
    return moving.report


@dataclass(frozen=True, slots=True)
class _Import:
    workspace: Workspace
    source: Side
    origin: str
    clock: Clock
    actor: str
    report: Report
    roots: dict[str, tuple[str, str]]
    """Root at the source → (root here, name of its ledger)."""

    def experiment(self, experiment: Experiment, tell: Callable[[str], None]) -> None:
        """Bring the experiment, its runs and its logged models."""
        now = self.clock.now()
        with self.workspace.database.write() as tx:
            experiments.ensure_default(tx, artifact_root=artifact_uri(""), at=now)
            new = experiments.find(tx, experiment.name) is None
            marked = replace(experiment, tags={**experiment.tags, IMPORTED_FROM: self.origin})
            here = imports.put_experiment(tx, marked, artifact_root=artifact_uri(""))
        self._count("experiments", new)
        for number, run in enumerate(self.source.runs(experiment), start=1):
            self.attempt(partial(self._run, run, here), f"run {run.run_id}")
            tell(f"experiment {experiment.name}: {number} runs")
        for model in self.source.logged_models(experiment):
            self.attempt(partial(self._logged_model, model, here), f"logged model {model.model_id}")

    def model(self, model: RegisteredModel) -> None:
        """Bring the registered model, its versions and its aliases."""
        self.attempt(lambda: self._model(model), f"model {model.name}")

    def record(self) -> None:
        """Leave an audit entry of an import that brought something."""
        if not self.report.copied:
            return
        digests = {item.name: item.target_sha256 for item in (*self.report.experiments, *self.report.models)}
        detail = {"copied": dict(self.report.copied), "same": self.report.same, "sha256": digests}
        with self.workspace.database.write() as tx:
            audit.append(
                tx,
                at=self.clock.now(),
                actor=self.actor,
                action="mlflow.import",
                subject=f"mlflow:{self.origin}"[:512],
                detail=detail,
            )

    def source_view(self) -> View:
        """The source, with the hashes of its files as they were when they were read."""
        return View(self.source, _run_id, _model_id, lambda _: True, self._as_received)

    def target_view(self) -> View:
        """What this import, or an earlier one of the same source, made here."""
        here = NoriaProject(self.workspace)

        def hashes(_: str, uri: str) -> list[Hash]:
            try:
                files = here.files(uri)
            except Unavailable:  # its files stayed at the source, which is told of the source
                return []
            return [(file.path, file.size_bytes, _sha256(here.read(uri, file.path))) for file in files]

        return View(
            here,
            lambda run: run.run_id if self._mine(run.tags) else None,
            lambda model: model.model_id if self._mine(model.tags) else None,
            lambda version: self._mine(version.tags),
            hashes,
        )

    def attempt(self, step: Callable[[], None], what: str) -> None:
        """Do a step; what it is refused for is listed, but a source that is gone ends the import."""
        try:
            step()
        except Unavailable:
            raise
        except (NoriaError, OSError) as error:
            reason = f"{error.message} {error.remedy}" if isinstance(error, NoriaError) else str(error)
            self.report.refused.append(f"{what}: {reason}")

    def _count(self, what: str, new: bool) -> None:
        self.report.count(what, new=new)

    def _mine(self, tags: object) -> bool:
        return isinstance(tags, dict) and tags.get(IMPORTED_FROM) == self.origin

    def _foreign(self, what: str) -> None:
        self.report.refused.append(
            f"{what} exists already and did not come from {self.origin}; rename or delete one of the two, or, "
            "when the source only changed its address, name the earlier one with --origin"
        )

    def _run(self, run: Run, experiment: Experiment) -> None:
        with self.workspace.database.read() as tx:
            known = imports.tags_and_status(tx, run.run_id)
        if known is not None and not self._mine(known[0]):
            return self._foreign(f"run {run.run_id}")
        key = f"{artifact_key(experiment.artifact_location)}/{run.run_id}/artifacts"
        root = self._root(run.artifact_uri, key, f"run {run.run_id}")
        if known is not None and IMPORTED_AT in known[0] and known[1] in ENDED:
            return self._count("runs", False)
        whole = self._copy_files(run.artifact_uri, key, f"run {run.run_id}")
        tags = {**run.tags, IMPORTED_FROM: self.origin}
        moved = replace(run, experiment_id=experiment.experiment_id, artifact_uri=root, tags=tags)
        self._write_run(moved, self._arrived() if whole else {})
        return self._count("runs", True)

    def _write_run(self, run: Run, arrived: dict[str, str]) -> None:
        """The run and its metrics, in one transaction unless there are very many; the mark of wholeness is last."""
        points = self.source.history(run)
        for start in range(0, max(len(points), 1), _METRICS_AT_ONCE):
            with self.workspace.database.write() as tx:
                if start == 0:
                    imports.put_run(tx, run)
                imports.put_metrics(tx, run.run_id, points[start : start + _METRICS_AT_ONCE])
                if start + _METRICS_AT_ONCE >= len(points):
                    runs.set_tags(tx, run.run_id, arrived)

    def _logged_model(self, model: LoggedModel, experiment: Experiment) -> None:
        known = self._known_model(model.model_id)
        if known is not None and not self._mine(known.tags):
            return self._foreign(f"logged model {model.model_id}")
        key = f"{artifact_key(experiment.artifact_location)}/models/{model.model_id}/artifacts"
        root = self._root(model.artifact_uri, key, f"model {model.model_id}")
        if known is not None and IMPORTED_AT in known.tags:
            return self._count("logged_models", False)
        whole = self._copy_files(model.artifact_uri, key, f"model {model.model_id}")
        tags = {**model.tags, IMPORTED_FROM: self.origin, **(self._arrived() if whole else {})}
        moved = replace(model, experiment_id=ExperimentId(experiment.experiment_id), artifact_uri=root, tags=tags)
        with self.workspace.database.write() as tx:
            imports.put_logged_model(tx, moved)
        return self._count("logged_models", True)

    def _known_model(self, model_id: str) -> LoggedModel | None:
        with self.workspace.database.read() as tx:
            try:
                return logged_models.get(tx, model_id)
            except NotFound:
                return None

    def _model(self, model: RegisteredModel) -> None:
        now, database = self.clock.now(), self.workspace.database
        with database.write() as tx:
            known = find_model(tx, model.name)
            if known is None:
                marked = replace(model, tags={**model.tags, IMPORTED_FROM: self.origin})
                import_model(tx, marked, origin=self.origin, at=now, actor=self.actor)
        if known is not None and not self._mine(known.tags):
            return self._foreign(f"model {model.name!r}")
        self._count("models", known is None)
        with database.read() as tx:
            there = {version.version: version for version in list_versions(tx, model.name)}
        for version in self.source.versions(model.name):
            step = partial(self._version, version, there.get(version.version))
            self.attempt(step, f"version {version.label}")
        with database.write() as tx:
            pointing = aliases(tx, model.name)
            for alias, number in self.source.aliases(model.name).items():
                if alias not in pointing:
                    set_alias(tx, model.name, alias, number, at=now, actor=self.actor)
        return None

    def _version(self, version: ModelVersion, known: ModelVersion | None) -> None:
        if known is not None:
            if self._mine(known.tags):
                return self._count("versions", False)
            return self._foreign(f"version {version.label}")
        source, digest, model_id = self._version_files(version)
        with self.workspace.database.write() as tx:
            moved = replace(
                version,
                source=source,
                digest=digest,
                logged_model_id=model_id,
                metrics=_numbers(tx, version.run_id),
                tags={**version.tags, IMPORTED_FROM: self.origin},
            )
            import_version(tx, moved, origin=self.origin, at=self.clock.now(), actor=self.actor)
        return self._count("versions", True)

    def _version_files(self, version: ModelVersion) -> tuple[str, str, str | None]:
        """Where the version's files lie here, their digest, and the logged model it is of.

        They came with a run or a logged model; files that lie elsewhere are brought now, if they can be.
        """
        root, path = version.source.rstrip("/"), ""
        while "/" in root:
            if root in self.roots:
                here, ledger = self.roots[root]
                files = [file for file in self._received(ledger) or [] if not path or file[0].startswith(f"{path}/")]
                kind, _, name = ledger.partition(" ")
                return f"{here}/{path}".rstrip("/"), _folder_digest(files, path), name if kind == "model" else None
            root, _, last = root.rpartition("/")
            path = f"{last}/{path}".rstrip("/")
        key = f"imported/{derived_id(version.model)}/{version.version}"
        if "/" in version.source and self._copy_files(version.source, key, f"version {version.label}"):
            return artifact_uri(key), _folder_digest(self._received(f"version {version.label}") or [], ""), None
        return version.source, "", version.logged_model_id

    def _arrived(self) -> dict[str, str]:
        return {IMPORTED_AT: iso(self.clock.now())}

    def _root(self, uri: str, key: str, ledger: str) -> str:
        """Where files from ``uri`` are looked for from now on: here, or there when only clients can read them."""
        remote = urllib.parse.urlsplit(uri).scheme not in _LOCAL_SCHEMES
        root = uri if remote else artifact_uri(key)
        self.roots[uri.rstrip("/")] = root, ledger
        return root

    def _copy_files(self, uri: str, key: str, ledger: str) -> bool:
        """Bring every file below ``uri``; False when they are out of reach, which the comparison tells."""
        blobs = self.workspace.artifacts
        received: list[Hash] = []
        try:
            files = self.source.files(uri)
        except Unavailable:
            return False
        for file in files:
            content = self.source.read(uri, file.path)
            blobs.write(f"{key}/{file.path}", content)
            received.append((file.path, len(content), _sha256(content)))
        self.report.count("files", len(files), new=True)
        blobs.write(_ledger_key(ledger), json.dumps(received).encode())
        return True

    def _received(self, ledger: str) -> list[Hash] | None:
        """What was received from the source under this name; None when it was not, or not all of it."""
        try:
            content = self.workspace.artifacts.read(_ledger_key(ledger))
        except NotFound:
            return None
        return [(path, size, sha256) for path, size, sha256 in json.loads(content)]

    def _as_received(self, name: str, uri: str) -> Sequence[Hash]:
        """The files that are at the source now, each with the hash of what was received; read again if it changed."""
        received = {path: (size, sha256) for path, size, sha256 in self._received(name) or []}
        found = []
        for file in self.source.files(uri):
            size, sha256 = received.get(file.path, (-1, ""))
            if size != file.size_bytes:
                sha256 = _sha256(self.source.read(uri, file.path))
            found.append((file.path, file.size_bytes, sha256))
        return found


def _run_id(run: Run) -> str:
    return run.run_id


def _model_id(model: LoggedModel) -> str:
    return model.model_id


def _numbers(tx: Transaction, run_id: str | None) -> dict[str, float]:
    """The newest metrics of the run that a policy can compare: NaN is none."""
    found = runs.load(tx, [run_id]) if run_id else []
    return {key: m.value for run in found for key, m in run.metrics.items() if not math.isnan(m.value)}


def _ledger_key(name: str) -> str:
    """Where the hashes of received files are kept, as bytes that no later import changes, however long the name is."""
    return f"imports/{derived_id(name)}.json"


def _folder_digest(files: Sequence[Hash], path: str) -> str:
    """The digest that ``store.blobs.folder_digest`` gives of the folder ``path`` among ``files``."""
    digest = hashlib.sha256()
    inside = {PurePosixPath(file).relative_to(path or "."): sha256 for file, _, sha256 in files}
    for file in sorted(inside):
        digest.update(file.as_posix().encode() + b"\0" + bytes.fromhex(inside[file]))
    return digest.hexdigest() if inside else ""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
