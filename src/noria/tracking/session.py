"""What the fluent verbs share: the tracking URI, the experiment, and the runs now active."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from noria.errors import Conflict, NoriaError
from noria.ids import process_user
from noria.tracking.backend import Backend, find_backend, open_backend
from noria.tracking.source import source_tags

if TYPE_CHECKING:
    from noria.tracking.entities import Run

DEFAULT_EXPERIMENT = "0"
_lock = threading.RLock()
_chosen: dict[str, str | None] = {"uri": None, "experiment_id": None}
_open: dict[tuple[int, str], Backend] = {}
"""By process too: a fork must not use the connections of its parent."""


class _Active(threading.local):
    """The active runs of a thread, the innermost last."""

    def __init__(self) -> None:
        self.runs: list[ActiveRun] = []


_active = _Active()


class ActiveRun:
    """A run being logged to; as a context manager, it ends with its block.

    FINISHED when the block is done, KILLED when it was interrupted from the keyboard, FAILED when it raised.
    """

    def __init__(self, run: Run, uri: str) -> None:
        self.run_id: str = run.run_id
        self.experiment_id: str = run.experiment_id
        self.name = run.name
        self.artifact_uri = run.artifact_uri
        self.tracking_uri = uri

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            _end_down_to(self, _status_after(kind))
        except NoriaError as fault:
            if error is None:
                raise
            error.add_note(f"run {self.run_id} could not be marked as ended: {fault}")

    def __repr__(self) -> str:
        return f"<ActiveRun {self.name!r} {self.run_id}>"


def set_tracking_uri(uri: str | os.PathLike[str] | None) -> None:
    """Choose where runs are kept: ``http(s)://`` of a Noria or MLflow server, or a project's folder.

    None goes back to the environment (``NORIA_TRACKING_URI``, then ``MLFLOW_TRACKING_URI``), then to the project around
    the working directory. Active runs stay where they were started; the experiment is the default one again. Raises
    InvalidInput for a scheme that nothing serves, and leaves all as it was.
    """
    text = None if uri is None else os.fspath(uri)
    find_backend(text or "")
    is_path = text is not None and "://" not in text and not text.startswith("file:")
    _chosen.update(uri=str(Path(text or "").expanduser().absolute()) if is_path else text, experiment_id=None)
    _close_all()


def get_tracking_uri() -> str:
    """The server's address or the project's folder in use. Raises InvalidConfig when there is none."""
    return backend().uri


def set_experiment(experiment_name: str | None = None, *, experiment_id: str | None = None) -> str:
    """Choose the experiment of the runs that follow, made when its name is new; gives its id.

    Raises Conflict when it was deleted.
    """
    chosen = experiment_id or backend().experiment_id(experiment_name or "Default")
    _chosen["experiment_id"] = chosen
    return chosen


def start_run(
    run_id: str | None = None,
    *,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    description: str | None = None,
) -> ActiveRun:
    """Start a run, or with ``run_id`` go on with one; meant for ``with``.

    Raises Conflict while another run is active, unless this one is ``nested`` in it.
    """
    around = active_run()
    if around is not None and not nested:
        raise Conflict(f"run {around.run_id} is active", remedy="End it with end_run(), or start one with nested=True.")
    own = {key: str(value) for key, value in (tags or {}).items()}
    if description is not None:
        own["mlflow.note.content"] = description
    if parent := parent_run_id or (around.run_id if around is not None else None):
        own["mlflow.parentRunId"] = parent
    used = backend()
    run = _resumed(used, run_id, own) if run_id else _created(used, experiment_id, run_name or "", own)
    started = ActiveRun(run, used.uri)
    _active.runs.append(started)
    return started


def active_run() -> ActiveRun | None:
    """The innermost active run of this thread, or None."""
    return _active.runs[-1] if _active.runs else None


def end_run(status: str = "FINISHED") -> None:
    """End the innermost active run: FINISHED, FAILED or KILLED. Without one, nothing happens."""
    if (run := active_run()) is not None:
        _end_down_to(run, status)


def target(run_id: str | None = None) -> tuple[Backend, str]:
    """Where to log: the run given, else the active one, else one that is started now and ends with the process."""
    if run_id is not None:
        return backend(), run_id
    run = active_run() or start_run()
    return backend(run.tracking_uri), run.run_id


def backend(uri: str | None = None) -> Backend:
    """The backend in use, or that of another URI; opened once a process."""
    name = _uri() if uri is None else uri
    process, where = os.getpid(), name or f"around {Path.cwd()}"
    with _lock:
        if (process, where) not in _open:
            opened = open_backend(name)
            _open[process, where] = _open.setdefault((process, opened.uri), opened)
        return _open[process, where]


def current_experiment() -> str:
    """The id of the experiment chosen by ``set_experiment``, else ``MLFLOW_EXPERIMENT_NAME``, else the default one."""
    if _chosen["experiment_id"] is None and (name := os.environ.get("MLFLOW_EXPERIMENT_NAME")):
        set_experiment(name)
    return _chosen["experiment_id"] or DEFAULT_EXPERIMENT


def _uri() -> str:
    environment = os.environ.get("NORIA_TRACKING_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    return _chosen["uri"] or environment or ""


def _resumed(used: Backend, run_id: str, tags: Mapping[str, str]) -> Run:
    run = used.get_run(run_id)
    if run.lifecycle_stage == "deleted":
        raise Conflict(f"run {run_id} is deleted", remedy="Restore it first.")
    used.set_status(run_id, "RUNNING")
    if tags:
        used.log(run_id, tags=tags)
    return run


def _created(used: Backend, experiment_id: str | None, name: str, tags: Mapping[str, str]) -> Run:
    return used.create_run(
        experiment_id or current_experiment(), name=name, user=process_user(), tags={**source_tags(), **tags}
    )


def _end_down_to(run: ActiveRun, status: str) -> None:
    """End the runs inside ``run``, then itself; one that ended already is left as it is."""
    while run in _active.runs:
        innermost = _active.runs.pop()
        backend(innermost.tracking_uri).set_status(innermost.run_id, status)


def _status_after(kind: type[BaseException] | None) -> str:
    if kind is None:
        return "FINISHED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"


def _close_all() -> None:
    """Give connections back; a backend that an active run needs opens new ones."""
    with _lock:
        for (process, _), opened in _open.items():
            if process == os.getpid():
                opened.close()


@atexit.register
def _leave() -> None:
    """End what is still active, as FAILED when the script ended with an error."""
    if _active.runs:
        _end_down_to(_active.runs[0], _status_after(getattr(sys, "last_type", None)))
    _close_all()
