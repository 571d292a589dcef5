"""`noria audit`: show and verify the chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from noria.audit import entries
from noria.audit import verify as verify_chain
from noria.errors import NotFound
from noria.store.database import Database
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_workspace, out, show

app = typer.Typer(no_args_is_help=True, help="The hash-chained record of every change.")
DatabaseOption = Annotated[
    Path | None, typer.Option("--database", help="A SQLite file, such as a copy; the project's by default.")
]


@app.command()
@clear_errors
def verify(project: ProjectOption = None, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Walk the whole chain and hold the records against it; exit 1 when anything was changed behind it."""
    with _open(project, database).read() as tx:
        found = verify_chain(tx)
    if as_json:
        print(json.dumps({"verified": True, "entries": found.entries, "head": found.head}))
    else:
        out.print(f"{found.entries} entries verified, head {found.head}", highlight=False)


@app.command(name="show")
@clear_errors
def show_entries(
    project: ProjectOption = None,
    database: DatabaseOption = None,
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """List the newest entries."""
    with _open(project, database).read() as tx:
        rows = [
            {
                "sequence": entry.sequence,
                "at": entry.recorded_at,
                "actor": entry.actor,
                "action": entry.action,
                "subject": entry.subject,
                "hash": entry.entry_hash if as_json else entry.entry_hash[:12],
            }
            | ({"detail": dict(entry.detail)} if as_json else {})
            for entry in entries(tx, limit=limit)
        ]
    show(rows, as_json=as_json, title="Audit entries, newest first")


def _open(project: Path | None, database: Path | None) -> Database:
    if database is None:
        return open_workspace(project)[2].database
    if not database.is_file():
        raise NotFound(f"there is no database {database}", remedy="Name an existing SQLite file.")
    return Database(f"sqlite:///{database.resolve()}")
