"""`noria demo`: an example project, played from its first row to its last."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from noria.errors import Conflict, NotFound
from noria.project_files import CONFIG_FILE
from noria.store.workspace import Workspace
from noria.surface.cli.context import DEMO_PREFIX, actor, bars, clear_errors, talk
from noria.surface.cli.processes import Child

if TYPE_CHECKING:
    from rich.progress import Progress

    from noria.lifecycle.summary import Event
    from noria.lifecycle.traffic import Outcome

_MARKER = ".noria-demo"
_PACKAGE = Path(__file__).parents[2]
_EXAMPLES = (_PACKAGE / "_examples", _PACKAGE.parents[1] / "examples")  # in a wheel, in a checkout


@clear_errors
def demo(
    example: Annotated[str, typer.Argument(help="Name of an example, or a folder with a project.")] = "flights",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted demo stopped.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to play it; ./noria-demo-NAME by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on the last line.")] = False,
) -> None:
    """Play an example's history as live traffic: train, promote, serve, watch, retrain, canary, roll back."""
    from noria.lifecycle.journey import Callbacks, Journey
    from noria.lifecycle.summary import summarize, timeline
    from noria.pipelines import load_project

    started = time.perf_counter()
    target = folder or Path.cwd() / f"{DEMO_PREFIX}{Path(example).name}"
    lock = _prepare(_source(example), target, resume=resume)
    project = load_project(target)
    workspace = Workspace(target, project.settings)
    children: list[Child] = []
    with _progress() as bars:
        task = bars.add_task("starting", total=None)

        def start_gateway() -> str:
            children.append(Child("serve", target, 0, log=workspace.folder / "gateway.log"))
            return children[0].url

        def on_day(day: date, outcome: Outcome, days: int) -> None:
            bars.update(task, total=days, advance=1, description=f"{day:%d %b %Y}  {outcome.sent:,} requests")

        callbacks = Callbacks(
            say=lambda text: bars.console.print(f"  {text}", highlight=False),
            on_day=on_day,
            gateway=start_gateway,
            route_ready=lambda revision: children[0].wait_for_revision(revision),
        )
        journey = Journey(project, workspace, actor=actor(), callbacks=callbacks)
        try:
            journal = journey.run()
        finally:
            for child in children:
                child.stop()
            lock.close()
    seconds = journey.seconds() | {"total": round(time.perf_counter() - started, 2)}
    with workspace.database.read() as tx:
        summary = summarize(tx, project, journal, seconds)
        events = timeline(tx)
    _print_timeline(events, summary, target)
    if as_json:
        print(json.dumps(summary, default=str))
    failed = int(str(summary["requests"]["failed"]))  # type: ignore[index]
    if failed:
        raise Conflict(f"{failed} requests failed", remedy="The journal names the first failure of each day.")


def _source(example: str) -> Path:
    for folder in (*(root / example for root in _EXAMPLES), Path(example)):
        if (folder / CONFIG_FILE).is_file():
            return folder
    names = sorted({path.parent.name for root in _EXAMPLES for path in root.glob(f"*/{CONFIG_FILE}")})
    raise NotFound(f"there is no example {example!r}", remedy=f"There are {', '.join(names)}; or name a folder.")


def _prepare(source: Path, target: Path, *, resume: bool) -> IO[str]:
    """A fresh copy of the example, or with ``resume`` the one already there; locked for as long as the handle is open.

    Raises Conflict for a folder that no demo made: nothing else is ever overwritten.
    """
    if (target / _MARKER).is_file():
        lock = _lock(target)
        if resume:
            return lock
    elif target.exists():
        raise Conflict(f"{target} exists and is no demo", remedy="Name another folder with --folder.")
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(source, staging, ignore=shutil.ignore_patterns(".noria", "__pycache__", _MARKER))
    (staging / _MARKER).write_text("A demo; `noria demo` may write it anew.\n")
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    return _lock(target)


def _lock(target: Path) -> IO[str]:
    lock = (target / _MARKER).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Conflict(f"{target} is being played", remedy="Wait for that demo, or name another --folder.") from None
    return lock


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return bars(*columns, transient=False)


def _print_timeline(events: list[Event], summary: dict[str, object], folder: Path) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title="What happened, in data time", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("when (UTC)", "what", "why"):
        table.add_column(column)
    for event in events:
        table.add_row(f"{event.at:%Y-%m-%d}", event.what, event.why)
    talk.print(table)
    requests, chain = summary["requests"], summary["audit"]
    assert isinstance(requests, dict) and isinstance(chain, dict)
    talk.print(
        f"{requests['sent']:,} requests, {requests['failed']} failed · audit chain of {chain['entries']} entries "
        f"verified; a copy with one byte changed: {chain['edited_copy']}"
    )
    talk.print(f"See it in the console: [bold]noria up --project {folder.name}[/bold]", highlight=False)
