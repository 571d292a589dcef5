"""`noria data`: files and folders under version, in DVC's formats."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from noria.data import dvc
from noria.data.dvc.checkout import CheckedOut
from noria.data.dvc.diff import Change, Side
from noria.data.dvc.listing import Tracked
from noria.data.dvc.transfer import Transfer
from noria.errors import InvalidInput
from noria.surface.cli.context import JsonOption, bars, clear_errors, show, talk

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Files and folders under version, as DVC keeps them."
)
TargetsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[TARGETS]...", help="Tracked paths or .dvc files; all by default.")
]
RemoteOption = Annotated[str, typer.Option("--remote", "-r", help="Remote of DVC's configuration; else the default.")]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Give up changes that are not in the cache.")]


@app.command()
@clear_errors
def add(
    paths: Annotated[list[str], typer.Argument(help="Files or folders inside the project.")],
    as_json: JsonOption = False,
) -> None:
    """Track files or folders, or record what they hold now."""
    if missing := [path for path in paths if not os.path.lexists(path)]:  # before this folder is made a project
        raise InvalidInput(f"{Path(missing[0]).absolute()} does not exist", remedy="Check the name.")
    repository = dvc.open_or_make_repository(Path.cwd())
    with _bar() as tell:
        added = dvc.add(repository, paths, tell)
    rows = [
        {
            "path": repository.name_of(item.path),
            "md5": item.output.md5,
            "size_bytes": item.output.size,
            "files": item.output.nfiles,
            "dvc_file": repository.name_of(item.dvc_file),
        }
        for item in added
    ]
    show(rows, as_json=as_json, title="Added")
    if repository.git is not None and not as_json:
        commit = dict.fromkeys(repository.name_of(path) for item in added for path in item.to_commit)
        talk.print(f"for git to have the version: git add {' '.join(map(shlex.quote, commit))}", markup=False)


@app.command(name="list")
@clear_errors
def list_(targets: TargetsArgument = None, as_json: JsonOption = False) -> None:
    """List what is tracked, and whether workspace and cache hold what is recorded."""
    repository = dvc.open_repository(Path.cwd())
    with _bar() as tell:
        found = dvc.list_tracked(repository, targets or (), tell)
    show([_tracked(repository, row) for row in found], as_json=as_json, title="Tracked data")


@app.command()
@clear_errors
def diff(
    older: Annotated[str, typer.Argument(help="Revision of git; by default what the .dvc files record.")] = "",
    newer: Annotated[str, typer.Argument(help="Revision of git; by default the workspace.")] = "",
    target: Annotated[list[str] | None, typer.Option("--target", help="Only this path; may be repeated.")] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Column that tells the rows of tables apart; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which files were added, modified, deleted or renamed, and what changed inside of tables."""
    repository = dvc.open_repository(Path.cwd())
    with _bar() as tell:
        changes = dvc.diff(repository, older, newer, targets=target or (), key=key or (), progress=tell)
    if as_json:
        print(json.dumps([_change(change) for change in changes], default=str))
        return
    show([_line(change) for change in changes], as_json=False, title="Changes")


@app.command()
@clear_errors
def checkout(targets: TargetsArgument = None, force: ForceOption = False, as_json: JsonOption = False) -> None:
    """Bring the workspace to what the .dvc files record."""
    repository = dvc.open_repository(Path.cwd())
    with _bar() as tell:
        done = dvc.checkout(repository, targets or (), force=force, progress=tell)
    show([_checked_out(repository, item) for item in done], as_json=as_json, title="Checked out")


@app.command()
@clear_errors
def push(targets: TargetsArgument = None, remote: RemoteOption = "", as_json: JsonOption = False) -> None:
    """Send the cache's objects to a remote; what is there is not sent again."""
    repository = dvc.open_repository(Path.cwd())
    with _bar() as tell:
        sent = dvc.push(repository, targets or (), remote=remote, progress=tell)
    show(_transfers(sent), as_json=as_json, title="Pushed")


@app.command()
@clear_errors
def pull(
    targets: TargetsArgument = None, remote: RemoteOption = "", force: ForceOption = False, as_json: JsonOption = False
) -> None:
    """Fetch what the cache lacks from a remote, and check it out."""
    repository = dvc.open_repository(Path.cwd())
    with _bar() as tell:
        fetched, done = dvc.pull(repository, targets or (), remote=remote, force=force, progress=tell)
    if as_json:
        rows = [_checked_out(repository, item) for item in done]
        print(json.dumps({"fetched": _transfers(fetched), "checked_out": rows}))
        return
    show(_transfers(fetched), as_json=False, title="Fetched")
    show([_checked_out(repository, item) for item in done], as_json=False, title="Checked out")


@contextmanager
def _bar() -> Iterator[dvc.Progress]:
    """Moves a bar on a terminal; says nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with bars(*columns) as shown:
        task = shown.add_task("looking", total=None)
        yield lambda text, done, of: shown.update(task, description=escape(text), completed=done, total=of)


def _tracked(repository: dvc.Repository, row: Tracked) -> dict[str, object]:
    return {
        "path": repository.name_of(row.path),
        "status": row.status.value,
        "md5": row.output.md5,
        "size_bytes": row.output.size,
        "files": row.output.nfiles,
        "dvc_file": repository.name_of(row.dvc_file),
    }


def _checked_out(repository: dvc.Repository, item: CheckedOut) -> dict[str, object]:
    path = repository.name_of(item.path)
    return {"path": path, "added": item.added, "replaced": item.replaced, "removed": item.removed}


def _transfers(transfers: Iterable[Transfer]) -> list[Mapping[str, object]]:
    return [asdict(transfer) for transfer in transfers]


def _change(change: Change) -> dict[str, object]:
    """The whole of a change, for machines."""
    return {
        "change": change.kind,
        "path": change.path,
        "origin": change.origin or None,
        "before": _side(change.before),
        "after": _side(change.after),
        "table": asdict(change.table) if change.table else None,
    }


def _side(side: Side | None) -> dict[str, object] | None:
    return {"md5": side.md5, "size_bytes": side.size} if side else None


def _line(change: Change) -> dict[str, object]:
    path = f"{change.origin} → {change.path}" if change.origin else change.path
    return {
        "change": change.kind,
        "path": path.encode(errors="backslashreplace").decode(),
        "bytes_before": change.before.size if change.before else None,
        "bytes_after": change.after.size if change.after else None,
        "inside": "; ".join(_inside(change)),
    }


def _inside(change: Change) -> Iterator[str]:
    """What changed inside of a table, in words."""
    if (table := change.table) is None:
        return
    for word, columns in (("new", table.columns_added), ("gone", table.columns_removed)):
        if columns:
            yield f"{word} columns: {', '.join(columns)}"
    yield from (f"{column}: {old} → {new}" for column, (old, new) in table.types_changed.items())
    if table.rows is None:
        yield f"rows: {table.rows_before} → {table.rows_after}"
        return
    yield f"rows: {table.rows.added} added, {table.rows.removed} removed, {table.rows.changed} changed"
    if table.rows.changed_keys:
        yield "such as " + ", ".join("/".join(map(str, key.values())) for key in table.rows.changed_keys)
