"""`noria import` and `noria export`: moving in from MLflow, and out to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.clock import SystemClock
from noria.errors import InvalidInput
from noria.surface.cli.context import JsonOption, ProjectOption, actor, bars, clear_errors, open_workspace, out

if TYPE_CHECKING:
    from rich.progress import Progress

    from noria.interchange import Comparison, Report, Side

importing = typer.Typer(no_args_is_help=True, add_completion=False, help="Move in from another tool.")
exporting = typer.Typer(no_args_is_help=True, add_completion=False, help="Move out to another tool.")


@importing.command(name="mlflow")
@clear_errors
def import_mlflow(
    uri: Annotated[
        str, typer.Argument(help="http[s]://… of a live server, or sqlite:///… or postgresql://… of its database.")
    ],
    artifacts: Annotated[
        Path | None, typer.Option("--artifacts", help="Folder behind mlflow-artifacts: (--artifacts-destination).")
    ] = None,
    origin: Annotated[
        str, typer.Option("--origin", help="Address it was imported from before, when that has changed.")
    ] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy everything from an MLflow server or its database, and prove it; run it again to go on or catch up."""
    from noria.interchange import MlflowDatabase, MlflowServer
    from noria.interchange import import_mlflow as move_in

    scheme = uri.partition("://")[0]
    if scheme not in ("http", "https") and scheme.partition("+")[0] not in ("sqlite", "postgresql"):
        raise InvalidInput(
            f"{uri!r} is neither a server nor a database of MLflow",
            remedy="Write http://host:port, sqlite:////folder/mlflow.db or postgresql://user@host/name.",
        )
    _, _, workspace = open_workspace(project)
    web = scheme.startswith("http")
    source: Side = MlflowServer(uri, artifacts=artifacts) if web else MlflowDatabase(uri, artifacts=artifacts)
    with _progress() as tell:
        report = move_in(
            workspace, source, origin=origin or source.name, clock=SystemClock(), actor=actor(), progress=tell
        )
    _finish(report, as_json=as_json)


@exporting.command(name="mlflow")
@clear_errors
def export_mlflow(
    uri: Annotated[str, typer.Argument(help="http[s]://… of a live server.")],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything to a live MLflow server, and prove it; run it again to go on or catch up."""
    from noria.interchange import MlflowServer
    from noria.interchange import export_mlflow as move_out

    if not uri.startswith(("http://", "https://")):
        raise InvalidInput(f"{uri!r} is no live server", remedy="Write it like http://127.0.0.1:5000.")
    _, settings, workspace = open_workspace(project)
    with _progress() as tell:
        report = move_out(workspace, MlflowServer(uri), project=settings.project.name, progress=tell)
    _finish(report, as_json=as_json)


class _Tell:
    """Moves a bar on a terminal; says nothing elsewhere."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("looking", total=None)

    def __call__(self, text: str, done: int, of: int) -> None:
        from rich.markup import escape

        self._bars.update(self._task, description=escape(text), completed=done, total=of)


@contextmanager
def _progress() -> Iterator[_Tell]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with bars(*columns) as shown:
        yield _Tell(shown)


def _finish(report: Report, *, as_json: bool) -> None:
    """Print the report; exit 1 when the ends differ."""
    if as_json:
        print(json.dumps(asdict(report) | {"same": report.same}))
    else:
        for line in _lines(report):
            out.print(line, markup=False, highlight=False)
    if not report.same:
        raise typer.Exit(1)


def _counted(kind: str, item: Comparison) -> str:
    """One line an item: a count that both ends share once, another as source → target, and the hash over all."""
    counts = []
    for name in (*item.source, *(name for name in item.target if name not in item.source)):
        here, there = item.source.get(name, 0), item.target.get(name, 0)
        if here or there:
            counts.append(f"{here if here == there else f'{here} → {there}'} {name.replace('_', ' ')}")
    verdict = "DIFFERS" if item.differences else f"same, sha256 {item.source_sha256[:16]}"
    return f"{kind} {item.name}: {', '.join(counts) or 'empty'}: {verdict}"


def _lines(report: Report) -> Iterator[str]:
    """Both ends compared, what was done, then everything that is not as it should be."""
    yield from (_counted("experiment", item) for item in report.experiments)
    yield from (_counted("model", item) for item in report.models)
    for what, counts in (("copied", report.copied), ("there already", report.skipped)):
        if counts:
            yield f"{what}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    for item in (*report.experiments, *report.models):
        yield from (f"differs: {item.name}: {difference}" for difference in item.differences)
    yield from (f"refused: {text}" for text in report.refused)
    yield from (f"not copied: {text}" for text in report.not_copied)
    yield f"{report.target} {'has all of' if report.same else 'differs from'} {report.source}"
