"""`noria audit`: show and verify the chain."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from noria.audit import Verification, entries
from noria.audit import verify as verify_chain
from noria.clock import iso
from noria.errors import InvalidInput, NotFound
from noria.store.database import Database
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_records, out, show

app = typer.Typer(no_args_is_help=True, help="The hash-chained record of every change.")
DatabaseOption = Annotated[
    Path | None, typer.Option("--database", help="A SQLite file, such as a copy; the project's by default.")
]


@app.command()
@clear_errors
def verify(
    project: ProjectOption = None,
    database: DatabaseOption = None,
    anchors: Annotated[
        Path | None, typer.Option("--anchors", help="A file of `noria audit anchor`; finds a tail cut off, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Walk the whole chain and hold the records against it; exit 1 when anything was changed behind it."""
    with _open(project, database).read() as tx:
        found = verify_chain(tx, [] if anchors is None else _read_anchors(anchors))
    if as_json:
        print(json.dumps({"verified": True, "entries": found.entries, "head": found.head}))
    else:
        out.print(f"{found.entries} entries verified, head {found.head}", highlight=False)


@app.command()
@clear_errors
def anchor(
    file: Annotated[Path, typer.Argument(help="File to append to; keep it on another machine.")],
    project: ProjectOption = None,
) -> None:
    """Verify, and append the chain's length and head to a file that is kept elsewhere."""
    with _open(project, None).read() as tx:
        found = verify_chain(tx)
    with file.open("a") as lines:
        lines.write(json.dumps({"entries": found.entries, "head": found.head}) + "\n")
    out.print(f"anchored {found.entries} entries, head {found.head}", highlight=False)


@app.command()
@clear_errors
def export(
    project: ProjectOption = None,
    database: DatabaseOption = None,
) -> None:
    """Print every entry as one line of JSON, oldest first."""
    with _open(project, database).read() as tx:
        for entry in entries(tx, limit=sys.maxsize, newest_first=False):
            print(json.dumps(asdict(entry) | {"recorded_at": iso(entry.recorded_at)}))


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


def _read_anchors(file: Path) -> list[Verification]:
    try:
        return [Verification(**json.loads(line)) for line in file.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{file} is no file of anchors: {error}", remedy="Name a file that `noria audit anchor` wrote."
        ) from None


def _open(project: Path | None, database: Path | None) -> Database:
    if database is None:
        return open_records(project).database
    if not database.is_file():
        raise NotFound(f"there is no database {database}", remedy="Name an existing SQLite file.")
    return Database(f"sqlite:///{database.resolve()}")
