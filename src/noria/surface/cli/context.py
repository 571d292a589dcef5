"""What every command shares: finding the project, talking, and turning errors into exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from noria.clock import iso
from noria.config import ServerSettings, Settings, load_server_settings, load_settings, nearest_project
from noria.errors import InvalidConfig, NoriaError, Unavailable
from noria.ids import process_user
from noria.project_files import CONFIG_FILE, FEAST_FILE
from noria.store.workspace import Workspace
from noria.surface.errors import outside, problem

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

P = ParamSpec("P")
R = TypeVar("R")

out = Console(soft_wrap=True)
talk = Console(stderr=True)
DEMO_PREFIX = "noria-demo-"
STORE_VARIABLE = "NORIA_STORE__DATABASE"

ProjectOption = Annotated[Path | None, typer.Option("--project", "-p", help="Folder with noria.toml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def bars(*columns: ProgressColumn, transient: bool = True) -> Progress:
    """Bars on stderr, where that is a terminal; nothing elsewhere. ``transient`` ones are gone when they are done."""
    from rich.progress import Progress

    return Progress(*columns, console=talk, disable=not talk.is_terminal, transient=transient)


def spinner() -> Progress:
    """What is being done, and for how long, of work whose end nobody knows."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    return bars(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=False)


def find_project(given: Path | None) -> Path:
    """The folder given, else the nearest one upward with a noria.toml, else the one demo folder here.

    Raises InvalidConfig when there is none.
    """
    if given is not None:
        return _folder(given)
    here = Path.cwd()
    if (nearest := nearest_project(here)) is not None:
        return nearest
    demos = sorted(path.parent for path in here.glob(f"{DEMO_PREFIX}*/{CONFIG_FILE}"))
    if len(demos) == 1:
        talk.print(f"[dim]project: {demos[0].name}[/dim]")
        return demos[0]
    raise InvalidConfig(
        f"no {CONFIG_FILE} in {here} or above", remedy="Change to a project, name one with --project, or `noria init`."
    )


def _folder(given: Path) -> Path:
    if not given.is_dir():
        raise InvalidConfig(f"there is no folder {given}", remedy="Name one that exists, or make it with `noria init`.")
    return given.resolve()


def find_repo(given: Path | None) -> Path:
    """The folder given, else the nearest upward with a feature_store.yaml or a noria.toml. Raises InvalidConfig."""
    if given is not None:
        return _folder(given)
    here = Path.cwd()
    marks = (CONFIG_FILE, FEAST_FILE)
    nearest = next((one for one in (here, *here.parents) if any((one / mark).is_file() for mark in marks)), None)
    return nearest if nearest is not None else find_project(None)


def open_workspace(given: Path | None) -> tuple[Path, Settings, Workspace]:
    """The project's folder, settings and state."""
    folder = find_project(given)
    settings = load_settings(folder)
    return folder, settings, Workspace(folder, settings)


def open_governed(given: Path | None) -> tuple[ServerSettings, Workspace]:
    """Settings and state: of a project, or where there is none, of the database that NORIA_STORE__DATABASE names."""
    folder = Path.cwd() if given is None and os.environ.get(STORE_VARIABLE) else find_project(given)
    settings = load_server_settings(folder)
    return settings, Workspace(folder, settings)


def open_records(given: Path | None) -> Workspace:
    """The state alone, as ``open_governed`` finds it."""
    return open_governed(given)[1]


def actor() -> str:
    """Who acts: the operating system's user."""
    return process_user()


def by_default(command: str) -> type[TyperGroup]:
    """A group that takes what names none of its commands as words of ``command``: `noria deploy models:/m/3`.

    Where that fails, and the word resembles a command, that is told: `noria deploy lst` may mean `list`.
    """

    class Group(TyperGroup):
        meant: str | None = None

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if args and args[0] not in ("--help", "-h", *self.commands):
                self.meant = next(iter(get_close_matches(args[0], self.commands, n=1)), None)
                args = [command, *args]
            return super().parse_args(ctx, args)

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except typer.Exit as end:
                if end.exit_code and self.meant:
                    talk.print(f"Did you mean `noria {ctx.info_name} {self.meant}`?", markup=False, highlight=False)
                raise

    return Group


def clear_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Tell a NoriaError, or what the operating system refuses, in plain words; a bug keeps its traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except OSError as error:
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            refused = Unavailable(text, remedy="Check the path, its permissions and the free space.")
            raise _exit(refused, as_json=bool(kwargs.get("as_json"))) from None
        except NoriaError as error:
            raise _exit(error, as_json=bool(kwargs.get("as_json"))) from None

    return wrapped


def _exit(error: NoriaError, *, as_json: bool) -> typer.Exit:
    if as_json:
        print(json.dumps({"error": problem(error)}))
    talk.print("[bold red]error:[/bold red]", end=" ")
    talk.print(str(error), markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(outside(error).exit_code)


_WIDEST = 10_000
_LEAST_PROSE = 24
"""Characters a column of sentences keeps; a table wider than its terminal is broken by that."""


def show(rows: Sequence[Mapping[str, object]], *, as_json: bool, title: str) -> None:
    """Print ``rows`` as a table (times in UTC, to the minute), or as JSON (RFC 3339).

    Where the terminal is too narrow sentences are broken between words, but never a name or an id: those are copied.
    Into a pipe or a file each row goes as one line, for what reads lines.
    """
    if as_json:
        print(json.dumps(list(rows), default=_plain))
        return
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    cells = [[escape(_cell(value)) for value in row.values()] for row in rows]
    for place, column in enumerate(rows[0] if rows else ["(none)"]):
        is_prose = any(" " in row[place] for row in cells)
        least = min(_LEAST_PROSE, max(len(row[place]) for row in cells)) if is_prose else None
        is_time = any(isinstance([*row.values()][place], datetime) for row in rows)
        heading = column.replace("_", " ") + (" (UTC)" if is_time else "")
        table.add_column(heading, overflow="fold", no_wrap=not is_prose, min_width=least)
    for row in cells:
        table.add_row(*row)
    needed = Measurement.get(out, out.options.update(max_width=_WIDEST), table)
    table.width = needed.maximum if _is_piped() else needed.minimum if needed.minimum > out.width else None
    out.print(table, crop=False)


def _is_piped() -> bool:
    return not out.is_terminal and "COLUMNS" not in os.environ


def _plain(value: object) -> str:
    return iso(value) if isinstance(value, datetime) else str(value)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def show_sections(document: Mapping[str, object], *, as_json: bool) -> None:
    """Print a document of named sections as indented lines (times in UTC), or as JSON (RFC 3339)."""
    if as_json:
        print(json.dumps(document, default=_plain))
        return
    for section, content in document.items():
        out.print(f"[bold]{section}[/bold]")
        for line in _lines(content):
            out.print(f"  {line}", markup=False, highlight=False)


def _lines(content: object) -> Iterator[str]:
    """A section's values, one a line; lists are indented below their name."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, list):
                yield f"{name}:"
                yield from (f"  {_told(item)}" for item in value)
            else:
                yield f"{name}: {_told(value)}"
    elif isinstance(content, list):
        for item in content:
            yield (
                ", ".join(f"{key}: {_told(value)}" for key, value in item.items())
                if isinstance(item, dict)
                else str(item)
            )
    else:
        yield _told(content)


def _told(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_inner(item)}" for key, item in value.items())
    return "unknown" if value is None else str(value)


def _inner(value: object) -> str:
    """A value inside of another, told apart from those beside it."""
    return f"({_told(value)})" if isinstance(value, Mapping) else "" if value is None else _told(value)
