"""`noria worker`: rollouts looked at, aliases followed, and a project's wheel turned."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.config import load_server_settings
from noria.errors import NoriaError
from noria.project_files import CONFIG_FILE
from noria.store.workspace import Workspace
from noria.surface.cli.context import ProjectOption, clear_errors, find_project, talk

if TYPE_CHECKING:
    from noria.lifecycle.troubles import Troubles
    from noria.lifecycle.wheel import Wheel

_FOLLOW_SECONDS = 2.0
_TURN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Job:
    """What is done again and again, each so many ``seconds``."""

    name: str
    seconds: float
    do: Callable[[], None]


@clear_errors
def worker(
    project: ProjectOption = None,
    store: Annotated[str, typer.Option(help="Database URL; with it no project is needed.")] = "",
    artifacts: Annotated[str, typer.Option(help="Artifacts: a folder, s3://BUCKET/PREFIX, gs:// or az://.")] = "",
    announce: Annotated[bool, typer.Option("--announce", hidden=True, help="Say as JSON when ready.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Run the controllers: judge rollouts, follow aliases and stages, turn the wheel of a project once a day."""
    from noria.clock import SystemClock
    from noria.lifecycle.deploying import follow
    from noria.lifecycle.rollouts import ACTOR, Rollouts
    from noria.lifecycle.troubles import Troubles
    from noria.registry import Policies

    folder = Path.cwd() if store and project is None else find_project(project)
    given = {name: url for name, url in {"database": store, "artifacts": artifacts}.items() if url}
    settings = load_server_settings(folder, {"store": given})
    workspace, clock = Workspace(folder, settings), SystemClock()
    policies = Policies.from_settings(settings.policies)
    rollouts = Rollouts(workspace, policies, clock, talk.print)
    lost = Troubles("deployment_cannot_follow", "deployment")
    jobs = [
        _Job("follow", _FOLLOW_SECONDS, lambda: follow(workspace, policies, clock, actor=ACTOR, troubles=lost)),
        _Job("rollouts", settings.rollout.look_seconds, rollouts.step),
    ]
    if (folder / CONFIG_FILE).is_file() and (wheel := _wheel(folder, workspace)) is not None:
        jobs.append(_Job("wheel", _TURN_SECONDS, _Turns(wheel)))
    if once:
        for job in jobs:
            job.do()
        return
    print("{}", flush=True) if announce else talk.print("worker ready", highlight=False)
    _run(jobs, Troubles("worker_job_failed", "job"))


def _run(jobs: Sequence[_Job], troubles: Troubles) -> None:
    """Do each job in its rhythm until a signal ends the process; one that fails is logged and done again."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    due = [0.0] * len(jobs)
    tick = min(job.seconds for job in jobs)
    elapsed = 0.0
    while not ended.is_set():
        for place, job in enumerate(jobs):
            if elapsed >= due[place]:
                due[place] = elapsed + job.seconds
                _try(job, troubles)
        ended.wait(tick)
        elapsed += tick


def _try(job: _Job, troubles: Troubles) -> None:
    try:
        job.do()
        troubles.end(job.name)
    except NoriaError as error:
        troubles.begin(job.name, error.message)
    except Exception as error:
        troubles.begin(job.name, repr(error), traceback=True)


def _wheel(folder: Path, workspace: Workspace) -> Wheel | None:
    """The project's wheel; None for a folder that trains nothing."""
    from noria.clock import SystemClock
    from noria.lifecycle.wheel import Wheel
    from noria.pipelines import load_project
    from noria.pipelines.project import FEATURES_FILE

    if not (folder / FEATURES_FILE).is_file():
        return None
    return Wheel(load_project(folder), workspace, SystemClock(), talk.print)


class _Turns:
    """Takes stock of each day once it is over; a turn that failed is taken again."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._done: date | None = None

    def __call__(self) -> None:
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
        if self._done != yesterday:
            self._wheel.turn(yesterday)
            self._done = yesterday
