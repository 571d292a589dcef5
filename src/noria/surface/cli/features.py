"""`noria features`: definitions drafted, applied, compared, and brought online."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from noria.clock import SystemClock, as_utc
from noria.errors import AlreadyExists, InvalidConfig, InvalidInput, NotFound
from noria.features import catalog, generate
from noria.features.feature_store import FeatureStore
from noria.features.materialize import Materialized
from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    actor,
    bars,
    clear_errors,
    find_repo,
    open_workspace,
    out,
    show,
    show_sections,
    spinner,
    talk,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The feature store: definitions, joins, online values."
)

FolderOption = Annotated[
    Path | None, typer.Option("--project", "-p", help="Folder with noria.toml or feature_store.yaml.")
]

_COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    TextColumn("{task.completed:,} rows online"),
    TimeElapsedColumn(),
)


def open_store(given: Path | None) -> FeatureStore:
    """The feature store of the folder given, or of the nearest one upward."""
    return FeatureStore(find_repo(given), actor=actor())


@app.command()
@clear_errors
def apply(
    delete: Annotated[bool, typer.Option("--delete", help="Take out of use what the code no longer defines.")] = False,
    project: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what the project's Python files define: what differs becomes a new version."""
    store = open_store(project)
    changes = store.apply(store.read_code(), partial=not delete)
    rows = [{"kind": one.kind, "name": one.name, "version": one.version, "change": one.what} for one in changes]
    show(rows, as_json=as_json, title=f"Feature store {store.project}")
    left = [row for row in store.compare(store.read_code()) if row["change"] == "deleted"]
    if left:
        names = ", ".join(f"{row['kind']} {row['name']}" for row in left)
        talk.print(f"[yellow]in use, but no longer in the code:[/yellow] {names}; --delete takes them out of use")


@app.command()
@clear_errors
def diff(project: FolderOption = None, as_json: JsonOption = False) -> None:
    """Show what `apply` would change, without changing anything."""
    store = open_store(project)
    show(store.compare(store.read_code()), as_json=as_json, title="What apply would change")


@app.command(name="list")
@clear_errors
def list_definitions(project: FolderOption = None, as_json: JsonOption = False) -> None:
    """List the definitions in use: views with their keys and features, services, entities, sources."""
    store = open_store(project)
    rows = [
        {
            "kind": one.kind,
            "name": one.name,
            "version": one.version,
            "about": _about(one.kind, one.document),
            "applied_at": one.applied_at,
            "applied_by": one.applied_by,
        }
        for one in store.versions()
        if one.active
    ]
    show(rows, as_json=as_json, title=f"Feature store {store.project}")


@app.command(name="show")
@clear_errors
def show_definition(
    name: Annotated[str, typer.Argument(help="Name of a view, service, entity or source.")],
    project: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every definition of that name: what it says now, and its versions."""
    found = open_store(project).versions(name)
    if not found:
        raise NotFound(f"nothing called {name!r} was ever applied", remedy="`noria features list` shows what there is.")
    sections: dict[str, object] = {}
    for kind in dict.fromkeys(one.kind for one in found):
        history = [one for one in found if one.kind == kind]
        sections[f"{kind} {name}"] = {
            **_flat(history[-1].document),
            "in_use": history[-1].active,
            "content_hash": history[-1].content_hash,
        }
        sections[f"versions of {kind} {name}"] = [
            {"version": one.version, "at": one.applied_at, "by": one.applied_by, "hash": one.content_hash[:12]}
            for one in history
        ]
    show_sections(sections, as_json=as_json)


@app.command(name="generate")
@clear_errors
def generate_definitions(
    table: Annotated[str, typer.Argument(help="Parquet files, a Delta table, or with --url a database's.")],
    url: Annotated[str, typer.Option(help="Database of the table: postgresql://, sqlite:///, duckdb:///.")] = "",
    key: Annotated[list[str] | None, typer.Option(help="Column of the entity's key; may be given again.")] = None,
    event_time: Annotated[str, typer.Option(help="Column that says when a row was true.")] = "",
    created_time: Annotated[str, typer.Option(help="Column that says when a row was known.")] = "",
    ttl_days: Annotated[int, typer.Option(min=0, help="Days after which a value is too old; 0: never.")] = 0,
    output: Annotated[Path | None, typer.Option(help="File to write, below the project; asks first.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    project: FolderOption = None,
) -> None:
    """Draft definitions from a table: types, keys and times are guessed, and shown before anything is written."""
    folder = _folder_or_here(project)
    source = generate.open_table(table, folder, url=url)
    found = generate.draft(source, folder, keys=key or (), event=event_time, created=created_time)
    code = generate.render(found, ttl_days=ttl_days)
    print(code, end="")
    for name, reason in found.left_out.items():
        talk.print(f"[yellow]left out[/yellow] {name}: {reason}", highlight=False)
    if output is None:
        talk.print("[dim]--output FILE writes this[/dim]")
        return
    path = folder / output
    if path.exists():
        raise AlreadyExists(f"{path} exists", remedy="Give another --output; nothing is overwritten.")
    if yes or typer.confirm(f"Write {output}?", err=True):
        path.write_text(code)
        out.print(f"{output} is written; `noria features apply` records it", markup=False, highlight=False)


@app.command()
@clear_errors
def materialize(
    views: Annotated[list[str] | None, typer.Argument(help="Views to bring online; all when none is named.")] = None,
    since: Annotated[str, typer.Option(help="Begin of the times to bring online, RFC 3339.")] = "",
    until: Annotated[str, typer.Option(help="End of the times to bring online, RFC 3339; now by default.")] = "",
    incremental: Annotated[bool, typer.Option("--incremental", help="Begin where each view's last run ended.")] = False,
    project: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the newest known values online; a run that was cut short is simply run again."""
    if incremental and since:
        raise InvalidInput("--incremental and --since both say where to begin", remedy="Give one of them.")
    store, end = open_store(project), _instant(until) if until else SystemClock().now()
    with bars(*_COLUMNS) as shown:
        tasks = {view.name: shown.add_task(view.name, total=None) for view in store.list_feature_views() if view.online}

        def progress(one: Materialized) -> None:
            shown.update(tasks[one.view], completed=one.written)

        if incremental:
            done = store.materialize_incremental(end, views or None, progress=progress)
        else:
            done = store.materialize(_instant(since) if since else None, end, views or None, progress=progress)
    rows = [{"view": one.view, "rows_read": one.read, "brought_online": one.written, "until": end} for one in done]
    show(rows, as_json=as_json, title="Materialized")


@app.command()
@clear_errors
def health(project: FolderOption = None, as_json: JsonOption = False) -> None:
    """List how fresh and complete each view's rows are; exits with 1 when a limit in noria.toml is broken."""
    found = open_store(project).health()
    rows = [
        {
            "view": one.view,
            "rows": one.rows,
            "newest_row": one.newest,
            "online_until": one.online_until,
            "most_nulls": max(one.null_rates.values(), default=0.0),
            "broken": "; ".join(one.broken),
        }
        for one in found
    ]
    show(rows, as_json=as_json, title="Feature views")
    if any(one.broken for one in found):
        raise typer.Exit(1)


@app.command()
@clear_errors
def parity(
    model: Annotated[str, typer.Argument(help="Name of the registered model.")],
    version: Annotated[int, typer.Argument(help="Its version.")],
    since: Annotated[str, typer.Option(help="Only predictions from this time on, RFC 3339.")] = "",
    until: Annotated[str, typer.Option(help="Only predictions before this time, RFC 3339.")] = "",
    at_least: Annotated[float, typer.Option(help="Exit with 1 when the share of equal values is below.")] = 0.0,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay served predictions against the offline join, say why values differ, and keep the result for policies."""
    from noria.lifecycle.parity import measure_parity, record
    from noria.pipelines import load_project

    folder, _, workspace = open_workspace(project)
    loaded = load_project(folder)
    begin, end = (_instant(since) if since else None), (_instant(until) if until else None)
    with spinner() as shown:
        task = shown.add_task("reading the log", total=None)

        def progress(view: str) -> None:
            shown.update(task, description=f"replaying {view}")

        found = measure_parity(loaded, workspace, model, version, since=begin, until=end, progress=progress)
    record(workspace, found, at=SystemClock().now(), actor=actor())
    show_sections(found.document(), as_json=as_json)
    if found.share < at_least:
        raise typer.Exit(1)


def _instant(text: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError:
        raise InvalidInput(f"{text!r} is no time", remedy="Write RFC 3339, such as 2026-03-01T12:00:00Z.") from None


def _folder_or_here(given: Path | None) -> Path:
    try:
        return find_repo(given)
    except InvalidConfig:
        return Path.cwd()


def _about(kind: catalog.Kind, document: Mapping[str, object]) -> str:
    """The one line of a definition in a list."""
    view = {key: value for key, value in document.items() if isinstance(value, list)}
    if kind == "view":
        keys = ", ".join(key for entity in view["entities"] for key in entity["join_keys"])
        names = ", ".join(name for name, _ in view["schema"] if name not in keys.split(", "))
        return f"by {keys or 'nothing'}: {names}"
    if kind == "on_demand_view":
        return ", ".join(name for name, _ in view["schema"])
    if kind == "service":
        return "; ".join(f"{name}: {', '.join(features)}" for name, features, *_ in view["features"])
    if kind == "entity":
        return ", ".join(view["join_keys"])
    return str(document["kind"])


def _flat(document: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if value not in ("", None, [], {})}
