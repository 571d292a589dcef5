"""`noria models cleanup`, `delete`, `tag`, `alias`: what is changed about versions besides their stage."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.clock import SystemClock
from noria.registry import Policies
from noria.surface.cli.context import JsonOption, ProjectOption, actor, clear_errors, open_governed, show


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
    policies = Policies.from_settings(settings.policies)
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
