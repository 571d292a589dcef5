"""Hyperparameter sweeps: an Optuna study whose trials are runs, worked on by processes that may die.

One process leads: it asks the study for the next trial, starts its run, hands it to a worker, and watches. The study is
kept in the project's database beside Noria's tables, so that a sweep goes on where it was stopped.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from noria.errors import Conflict, InvalidInput, NoriaError
from noria.ids import process_user
from noria.tracking.session import active_run, backend, current_experiment, set_experiment
from noria.tracking.source import source_tags
from noria.tracking.sweep_process import ERROR, Worker
from noria.tracking.sweep_space import distributions_of
from noria.tracking.sweep_storage import open_storage, sampler_of, used_here

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

Direction = Literal["maximize", "minimize"]
FALLBACK_STORAGE = "sqlite:///noria-sweeps.db"
"""Where a study is kept when runs go to a server over HTTP, which has no place for it."""

_PARENT = "noria.run_id"
_OWNER = "noria.owner"
_LOST = "noria.lost"
_ATTEMPT = "noria.attempt"
_MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found; ``counts`` says how many trials ended complete, pruned, failed, or were lost and repeated."""

    name: str
    run_id: str
    best_run_id: str
    best_params: Mapping[str, Any]
    best_value: float
    counts: Mapping[str, int]


def sweep(
    objective: Callable[..., float],
    *,
    name: str = "sweep",
    search_space: Mapping[str, Any] | None = None,
    trials: int = 50,
    workers: int = 1,
    direction: Direction = "maximize",
    metric: str = "objective",
    experiment: str | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    seed: int = 0,
    storage: str = "",
    progress: bool | None = None,
) -> SweepResult:
    """Search for the params with the best value of ``objective``; every trial is a run nested in the sweep's own.

    With a ``search_space`` the objective takes the params, and as a second argument, if it has one, the Optuna trial:
    ``{"depth": (2, 10), "rate": (1e-4, 0.1, "log"), "kind": ["a", "b"]}`` are whole numbers, a number searched by its
    logarithm, and a choice; Optuna's distributions go too. Without one it takes the trial and suggests what it needs.
    What a trial reports (``trial.report(value, step)``) is logged as ``metric``; one that is pruned ends as KILLED, one
    that raises as FAILED with the error.

    A sweep of the same ``name`` in the same experiment goes on until it has ``trials``; what was running when its
    process died runs again. ``objective`` runs in ``workers`` processes of their own. The study lies in the project's
    database, over HTTP in a file noria-sweeps.db here, or at the database URL ``storage``.
    Raises Conflict when another process leads this sweep now, InvalidInput, and NoriaError when no trial had a value.
    """
    if trials < 1 or workers < 1 or direction not in ("maximize", "minimize"):
        raise InvalidInput(
            f"{trials} trials, {workers} workers and {direction!r} are no sweep",
            remedy="Give at least one of each, and maximize or minimize.",
        )
    if experiment is not None:
        set_experiment(experiment)
    leader = _Leader(
        _Plan(
            name=name,
            objective=objective,
            search_space=distributions_of(search_space) if search_space is not None else None,
            trials=trials,
            metric=metric,
            seed=seed,
            storage=storage or _storage_of(backend().uri),
            experiment_id=current_experiment(),
            sampler=sampler,
            pruner=pruner,
        ),
        direction,
    )
    return leader.run(workers, progress)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the leader knows from the start, and tells its workers."""

    name: str
    objective: Callable[..., float]
    search_space: dict[str, Any] | None
    trials: int
    metric: str
    seed: int
    storage: str
    experiment_id: str
    sampler: BaseSampler | None
    pruner: BasePruner | None

    @property
    def study_name(self) -> str:
        """Unique in a database: names are unique in an experiment only."""
        return f"{self.experiment_id}/{self.name}"


class _Leader:
    """Hands out trials. The study is used under a lock: each worker has a thread of its own here."""

    def __init__(self, plan: _Plan, direction: Direction) -> None:
        import optuna

        self._plan = plan
        self._lock = threading.Lock()
        self._faults: list[BaseException] = []
        self._stopping = threading.Event()
        self._backend = backend()
        self._storage = open_storage(plan.storage)
        self._direction = direction
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=plan.study_name,
            direction=direction,
            load_if_exists=True,
            pruner=plan.pruner,
        )
        begun = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = plan.sampler or sampler_of(plan.seed + begun)  # going on, it must not draw the same again

    def run(self, workers: int, progress: bool | None) -> SweepResult:
        """Lead the sweep to its end. Interrupted, it ends as KILLED and can be gone on with."""
        try:
            with used_here(self._storage):
                return self._lead(workers, progress)
        finally:
            self._storage.engine.dispose()

    def _lead(self, workers: int, progress: bool | None) -> SweepResult:
        self._take_over()
        self._parent = self._start_parent()
        status = "KILLED"
        try:
            self._recover()
            self._work(workers, progress)
            result = self._result()
            status = "FINISHED"
            return result
        except Exception:
            status = "FAILED"
            raise
        finally:
            self._backend.set_status(self._parent, status)
            self._study.set_user_attr(_OWNER, "")

    def _take_over(self) -> None:
        if self._study.direction.name.lower() != self._direction:
            raise Conflict(
                f"the sweep {self._plan.name!r} is there and does not {self._direction}",
                remedy="Give this one another name.",
            )
        owner = self._study.user_attrs.get(_OWNER, "")
        if owner and owner != _me() and _is_alive(owner):
            raise Conflict(
                f"the sweep {self._plan.name!r} is led by process {owner}", remedy="Wait for it, or give another name."
            )
        self._study.set_user_attr(_OWNER, _me())

    def _start_parent(self) -> str:
        """The run that all trials are nested in: a new one, or the one this sweep had."""
        known = self._study.user_attrs.get(_PARENT)
        if known is not None:
            self._backend.set_status(known, "RUNNING")
            return str(known)
        around = active_run()
        tags = {"noria.sweep": self._plan.name, **source_tags()}
        if around is not None:
            tags["mlflow.parentRunId"] = around.run_id
        made = self._backend.create_run(self._plan.experiment_id, name=self._plan.name, user=process_user(), tags=tags)
        self._study.set_user_attr(_PARENT, made.run_id)
        return made.run_id

    def _recover(self) -> None:
        """Fail and repeat the trials that a leader before this one left running."""
        import optuna

        for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            self._lose(trial.number, "the process that led the sweep died")

    def _work(self, workers: int, progress: bool | None) -> None:
        with _bar(self._plan.name, self._plan.trials, progress) as advance:
            advance(self._done())
            threads = [threading.Thread(target=self._lead_worker, args=(advance,), daemon=True) for _ in range(workers)]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.2)  # in pieces, so that Ctrl-C is heard
            finally:
                self._stopping.set()
                for thread in threads:
                    thread.join(30)
        if self._faults:
            raise self._faults[0]

    def _lead_worker(self, advance: Callable[[int], None]) -> None:
        """One worker after another, as long as there are trials: a worker that dies is replaced."""
        with used_here(self._storage):
            self._hand_out(advance)

    def _hand_out(self, advance: Callable[[int], None]) -> None:
        worker: Worker | None = None
        try:
            while not self._stopping.is_set() and (number := self._next()) is not None:
                worker = worker or Worker(self._task())
                if not worker.work_on(number, self._stopping):
                    with self._lock:
                        self._lose(number, f"its worker {worker.ending()}")
                    worker = None
                advance(self._done())
        except BaseException as fault:
            self._faults.append(fault)
            self._stopping.set()
        finally:
            if worker is not None:
                worker.stop()

    def _task(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "objective": plan.objective,
            "takes_params": plan.search_space is not None,
            "storage": plan.storage,
            "study_name": plan.study_name,
            "metric": plan.metric,
            "seed": plan.seed,
            "sampler": plan.sampler,
            "pruner": plan.pruner,
            "uri": self._backend.uri,
        }

    def _next(self) -> int | None:
        """A trial with its run, or None when all have been handed out."""
        with self._lock:
            if self._counted() >= self._plan.trials:
                return None
            trial = self._study.ask(self._plan.search_space)
            attempt = trial.user_attrs.get(_ATTEMPT, 1)
            tags = {"mlflow.parentRunId": self._parent, "noria.trial": str(trial.number), **source_tags()}
            if attempt > 1:
                tags["noria.attempt"] = str(attempt)
            name = f"{self._plan.name} {trial.number}"
            run = self._backend.create_run(self._plan.experiment_id, name=name, user=process_user(), tags=tags)
            trial.set_user_attr(_PARENT, run.run_id)
            return trial.number

    def _lose(self, number: int, why: str) -> None:
        """Fail a trial whose process died, and queue its params again unless that happened too often."""
        import optuna

        frozen = next(trial for trial in self._study.get_trials(deepcopy=False) if trial.number == number)
        if frozen.state.is_finished():  # it had told the study before it died
            return
        attempt = int(frozen.user_attrs.get(_ATTEMPT, 1))
        again = attempt < _MOST_ATTEMPTS
        if again:
            self._study._storage.set_trial_user_attr(frozen._trial_id, _LOST, True)
        self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        if (run_id := frozen.user_attrs.get(_PARENT)) is not None:
            self._backend.log(run_id, tags={"noria.error": why})
            self._backend.set_status(run_id, "FAILED")
        if again:
            self._study.enqueue_trial(frozen.params, user_attrs={_ATTEMPT: attempt + 1})

    def _counted(self) -> int:
        """Trials that count: all but the lost, which are repeated, and those that wait to be."""
        import optuna

        waiting = optuna.trial.TrialState.WAITING
        all_trials = self._study.get_trials(deepcopy=False)
        return sum(trial.state != waiting and not trial.user_attrs.get(_LOST) for trial in all_trials)

    def _done(self) -> int:
        with self._lock:
            return sum(count for state, count in self._counts().items() if state != "lost")

    def _counts(self) -> dict[str, int]:
        counts = dict.fromkeys(("complete", "pruned", "failed", "lost"), 0)
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        for trial in self._study.get_trials(deepcopy=False):
            if (state := names.get(trial.state.name)) is not None:
                counts["lost" if trial.user_attrs.get(_LOST) else state] += 1
        return counts

    def _cause(self) -> str:
        """What the newest failed trial ended by, if one failed."""
        kept = [trial.user_attrs for trial in self._study.get_trials(deepcopy=False)]
        told = [attributes[ERROR] for attributes in kept if ERROR in attributes]
        return f"; the last one ended by {told[-1]}" if told else ""

    def _result(self) -> SweepResult:
        counts = self._counts()
        if not counts["complete"]:
            raise NoriaError(
                f"no trial of the sweep {self._plan.name!r} had a value: {counts}{self._cause()}",
                remedy=f"Look at the tag {ERROR} of its failed runs.",
            )
        best = self._study.best_trial
        assert best.value is not None
        run_id = str(best.user_attrs[_PARENT])
        tags = {"noria.best_run_id": run_id, **{f"noria.trials.{state}": str(n) for state, n in counts.items()}}
        self._backend.log(self._parent, metrics={self._plan.metric: best.value}, tags=tags)
        return SweepResult(self._plan.name, self._parent, run_id, dict(best.params), best.value, counts)


def _storage_of(uri: str) -> str:
    """The database of the project in the folder ``uri``, migrated."""
    if "://" in uri:
        return FALLBACK_STORAGE.replace("///", f"///{Path.cwd()}/")
    from noria.config import load_settings
    from noria.store.workspace import Workspace

    workspace = Workspace(Path(uri), load_settings(Path(uri)))
    workspace.database.close()
    return workspace.database.url


def _bar(name: str, total: int, wanted: bool | None) -> Any:
    """A context that gives a function which shows how many trials are done; on a terminal's stderr by default."""
    import contextlib

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (console.is_terminal if wanted is None else wanted):
        return contextlib.nullcontext(lambda _done: None)

    @contextlib.contextmanager
    def shown() -> Any:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.update(task, completed=done)

    return shown()


def _me() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


def _is_alive(owner: str) -> bool:
    """Whether the process ``number@host`` runs; one on another machine is taken to."""
    number, _, host = owner.partition("@")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


__all__: Sequence[str] = ["SweepResult", "sweep"]
