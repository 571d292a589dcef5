"""`noria audit`: show and verify the chain."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from noria.audit import entries, settle_all
from noria.audit import verify as verify_chain
from noria.audit.anchors import anchor as keep_anchor
from noria.audit.anchors import read_anchors
from noria.clock import iso
from noria.errors import NotFound
from noria.store.blobs import BlobStore, open_blobs
from noria.store.database import Database
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_records, out, show

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The hash-chained record of every change.")
DatabaseOption = Annotated[
    Path | None, typer.Option("--database", help="A SQLite file, such as a copy; the project's by default.")
]


@app.command()
@clear_errors
def verify(
    project: ProjectOption = None,
    database: DatabaseOption = None,
    anchors: Annotated[
        str, typer.Option("--anchors", help="Where `noria audit anchor` keeps its own; finds a tail cut off, too.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Walk the whole chain and hold the records against it; exit 1 when anything was changed behind it."""
    kept = read_anchors(_place(anchors)) if anchors else []
    if anchors and not kept:
        raise NotFound(
            f"there is no anchor at {anchors}",
            remedy="Name where `noria audit anchor` keeps them; without --anchors the chain alone is verified.",
        )
    with _open(project, database).read() as tx:
        found = verify_chain(tx, kept)
    if as_json:
        document = {"verified": True, "entries": found.entries, "head": found.head, "anchors": len(kept)}
        print(json.dumps(document))
    else:
        against = f", against {len(kept)} {'anchor' if len(kept) == 1 else 'anchors'}" if kept else ""
        out.print(f"{found.entries} entries verified{against}, head {found.head}", highlight=False)


@app.command()
@clear_errors
def anchor(
    place: Annotated[
        str, typer.Argument(help="A folder on another machine, or s3://, gs://, az:// of locked objects.")
    ],
    project: ProjectOption = None,
) -> None:
    """Verify, and keep the chain's length and head in a folder or bucket elsewhere; the server does so by itself."""
    found = keep_anchor(_open(project, None), _place(place))
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
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 30,
    about: Annotated[str, typer.Option(help="Only those that name this, such as run:ID or model:NAME.")] = "",
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
            for entry in entries(tx, limit=limit, about=about)
        ]
    show(rows, as_json=as_json, title="Audit entries, newest first")


def _place(url: str) -> BlobStore:
    return open_blobs(url, folder=Path(url), cache=Path(tempfile.gettempdir()))


def _open(project: Path | None, database: Path | None) -> Database:
    if database is None:
        found = open_records(project).database
        settle_all(found)  # what is noted and not in the chain yet; a copy is left as it is
        return found
    if not database.is_file():
        raise NotFound(f"there is no database {database}", remedy="Name an existing SQLite file.")
    return Database(f"sqlite:///{database.resolve()}")
