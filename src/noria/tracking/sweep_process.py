"""A worker of a sweep, seen from both sides: the process that runs trials, and the leader's handle on it.

It is a fresh interpreter, not a fork: it shares no connection, thread or lock with the leader, and a notebook or a
script without a ``__main__`` guard can have workers too. The leader writes the task, then trial numbers, to its stdin;
the worker answers each on what was its stdout. When the leader dies, its stdin ends and the worker leaves at once.
"""

from __future__ import annotations

import base64
import contextlib
import inspect
import math
import os
import queue
import subprocess
import sys
import threading
import traceback
import warnings
from typing import IO, Any

from noria.tracking.client import log_metric, log_params, set_tags
from noria.tracking.session import end_run, set_tracking_uri, start_run
from noria.tracking.sweep_storage import open_storage, sampler_of

_LONGEST_ERROR = 5000
_RUN = "noria.run_id"
ERROR = "noria.error"
"""Of a failed trial what it ended by; the tag of its run has the whole traceback."""
_LONGEST_CAUSE = 300
_COMMAND = (  # Ctrl-C reaches every process of the terminal: the leader tells of it, so a worker just leaves
    "import os, signal; signal.signal(signal.SIGINT, lambda *_: os._exit(130)); "
    "from noria.tracking.sweep_process import main; main()"
)


class Worker:
    """The leader's handle. Not to be shared between threads."""

    def __init__(self, task: dict[str, Any]) -> None:
        import cloudpickle

        content = base64.b64encode(cloudpickle.dumps(task))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._send(content)

    def work_on(self, number: int, stopping: threading.Event) -> bool:
        """Whether the worker came to the trial's end; it is ended too when the leader is ``stopping``."""
        if not self._send(str(number).encode()):
            return False
        answer: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=lambda: answer.put(self._stdout.readline()), daemon=True).start()
        while True:
            try:
                return bool(answer.get(timeout=0.2))
            except queue.Empty:
                if stopping.is_set():
                    self._process.kill()

    def ending(self) -> str:
        """How it ended, in words."""
        code = self._process.wait(30)
        self._close()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def stop(self) -> None:
        """End it; it has nothing to do."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _send(self, line: bytes) -> bool:
        try:
            self._stdin.write(line + b"\n")
            self._stdin.flush()
        except OSError:
            return False
        return True

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # what was not sent any more
            self._stdin.close()
        self._stdout.close()


def main() -> None:
    """The worker process: a task, then trials, until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the objective prints must not be taken for an answer
    task, numbers = _listen(sys.stdin.buffer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trials = _Trials(task)
    while True:
        trials.run(numbers.get())
        answers.write(b"done\n")


def _listen(source: IO[bytes]) -> tuple[dict[str, Any], queue.SimpleQueue[int]]:
    """The task, and a queue that a thread fills with the numbers of trials; the end of ``source`` ends the process."""
    import cloudpickle

    task = cloudpickle.loads(base64.b64decode(source.readline()))
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def read() -> None:
        for line in source:
            numbers.put(int(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return task, numbers


class _Trials:
    """Runs trials of one study, each inside the run the leader started for it."""

    def __init__(self, task: dict[str, Any]) -> None:
        import optuna

        set_tracking_uri(task["uri"])
        self._task = task
        self._objective = task["objective"]
        self._study = optuna.load_study(
            study_name=task["study_name"], storage=open_storage(task["storage"]), pruner=task["pruner"]
        )

    def run(self, number: int) -> None:
        """One trial to its end: told to the study, and to its run."""
        import optuna

        states = optuna.trial.TrialState
        self._study.sampler = self._task["sampler"] or sampler_of(self._task["seed"] + number)
        trial = _reporting(self._study, number, self._task["metric"])
        start_run(trial.user_attrs[_RUN])
        try:
            value = float(self._value(trial))
            if math.isnan(value):
                raise ValueError("the objective returned NaN")
        except optuna.TrialPruned:
            self._end(trial, states.PRUNED, "KILLED", {"noria.pruned": "true"})
        except Exception as error:
            told = "".join(traceback.format_exception(error))[-_LONGEST_ERROR:]
            trial.set_user_attr(ERROR, told.strip().splitlines()[-1][:_LONGEST_CAUSE])
            self._end(trial, states.FAIL, "FAILED", {ERROR: told})
        else:
            log_metric(self._task["metric"], value, step=max(trial.reported, default=-1) + 1)
            self._end(trial, states.COMPLETE, "FINISHED", {}, value)

    def _value(self, trial: Any) -> float:
        if not self._task["takes_params"]:
            return float(self._objective(trial))
        log_params(trial.params)
        takes_trial = len(inspect.signature(self._objective).parameters) > 1
        return float(self._objective(dict(trial.params), *([trial] if takes_trial else [])))

    def _end(self, trial: Any, state: Any, status: str, tags: dict[str, str], value: float | None = None) -> None:
        """The study last: a worker that dies before leaves a trial that runs again, never one without its run."""
        if not self._task["takes_params"]:
            log_params(trial.params)
        if tags:
            set_tags(tags)
        end_run(status)
        self._study.tell(trial.number, value, state=state)


def _reporting(study: Any, number: int, metric: str) -> Any:
    """The trial of that number; what it reports is logged to the active run too."""
    import optuna

    class Reporting(optuna.trial.Trial):
        reported: set[int]

        def report(self, value: float, step: int) -> None:
            super().report(value, step)
            self.reported.add(step)
            log_metric(metric, value, step=step)

    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = Reporting(study, trial_id)
    trial.reported = set()
    return trial
