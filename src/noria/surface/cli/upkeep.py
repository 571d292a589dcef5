"""`noria models lineage`, `artifacts`, `tag`, `alias`, `delete`, `cleanup`: about versions, besides their stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from noria.clock import SystemClock
from noria.errors import InvalidInput
from noria.registry import Policies, get_version
from noria.registry.models import check_tags, set_alias
from noria.registry.versions import update_version
from noria.store.blobs import BlobStore, Entry
from noria.store.workspace import ARTIFACT_SCHEME, artifact_key
from noria.surface.cli import models
from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    actor,
    clear_errors,
    open_governed,
    open_records,
    out,
    show,
    show_sections,
)
from noria.surface.cli.models import ModelArgument, VersionArgument


@clear_errors
def lineage(
    model: ModelArgument, version: VersionArgument, project: ProjectOption = None, as_json: JsonOption = False
) -> None:
    """Print what a version was made from (run, data, code) and what became of it (moves, aliases, deployments)."""
    from noria.lifecycle.lineage import lineage as find

    show_sections(find(open_records(project), model, version), as_json=as_json)


@clear_errors
def artifacts(
    model: ModelArgument,
    version: VersionArgument,
    download: Annotated[Path | None, typer.Option(help="Folder to copy the files to; made when it is new.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a version's files with their sizes, or download them."""
    workspace = open_records(project)
    with workspace.database.read() as tx:
        source = get_version(tx, model, version).source
    if not source.startswith(ARTIFACT_SCHEME) and ":" in source:
        raise InvalidInput(f"the files lie at {source}, not among Noria's artifacts", remedy="Fetch them from there.")
    root = artifact_key(source).rstrip("/")
    files = list(_files(workspace.artifacts, root))
    paths = [PurePosixPath(entry.key).relative_to(root) for entry in files]
    if download is not None:
        for entry, path in zip(files, paths, strict=True):
            _copy(workspace.artifacts, entry.key, download / path)
    rows = [{"path": str(path), "size_bytes": entry.size} for entry, path in zip(files, paths, strict=True)]
    show(rows, as_json=as_json, title=f"Files of {model}@{version}" + (f", copied to {download}" if download else ""))


@clear_errors
def tag(
    model: ModelArgument,
    version: VersionArgument,
    key: Annotated[str, typer.Argument(help="Name of the tag.")],
    value: Annotated[str, typer.Argument(help="Its value.")],
    project: ProjectOption = None,
) -> None:
    """Add or replace a tag of a version."""
    check_tags({key: value})
    with open_records(project).database.write() as tx:
        tags = {**get_version(tx, model, version).tags, key: value}
        update_version(tx, model, version, tags=tags, at=SystemClock().now(), actor=actor())
    out.print(f"{model}@{version} has {key} = {value}", highlight=False, markup=False)


@clear_errors
def alias(
    model: ModelArgument,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Alias, such as champion.")],
    version: VersionArgument,
    project: ProjectOption = None,
) -> None:
    """Point an alias at a version, moving it when it points elsewhere."""
    with open_records(project).database.write() as tx:
        set_alias(tx, model, name, version, at=SystemClock().now(), actor=actor())
    out.print(f"{model}@{name} is version {version}", highlight=False)


@clear_errors
def delete(
    model: ModelArgument,
    version: VersionArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    project: ProjectOption = None,
) -> None:
    """Delete a version that is not in Production and serves nothing, with the files that are its alone."""
    from noria.lifecycle.retention import remove_version

    workspace = open_records(project)
    with workspace.database.read() as tx:
        label = get_version(tx, model, version).label
    if not yes:
        typer.confirm(f"Delete {label}?", abort=True, err=True)
    removed = remove_version(workspace, model, version, at=SystemClock().now(), actor=actor(), reason=reason)
    files = "with its files" if removed.files_deleted else "its files stay: they are not its alone"
    out.print(f"{label} is deleted, {files}", highlight=False)


@clear_errors
def cleanup(
    model: Annotated[str | None, typer.Argument(help="Name of the registered model; all by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell which, and delete nothing.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the versions that their policy's retention lets go, with their files."""
    from noria.lifecycle.retention import clean_up

    settings, workspace = open_governed(project)
    policies = Policies.from_settings(settings.policies, accounts=settings.access.enabled)
    removed = clean_up(workspace, policies, model, at=SystemClock().now(), actor=actor(), dry_run=dry_run)
    rows = [
        {
            "model": removal.version.model,
            "version": removal.version.version,
            "stage": removal.version.stage.value,
            "created_at": removal.version.created_at,
            "deleted": not dry_run,
            "files_deleted": bool(removal.files_deleted),
        }
        for removal in removed
    ]
    show(rows, as_json=as_json, title="Would be deleted" if dry_run else "Deleted")


def _files(blobs: BlobStore, folder: str) -> Iterator[Entry]:
    """Every file below ``folder``, by path."""
    for entry in blobs.entries(folder):
        if entry.is_folder:
            yield from _files(blobs, entry.key)
        else:
            yield entry


def _copy(blobs: BlobStore, key: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.writelines(blobs.stream(key)[1])


app = models.app
for _command in (lineage, artifacts, tag, alias, delete, cleanup):
    app.command()(_command)
