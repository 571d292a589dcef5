"""`noria rollback`: the one word for when something is wrong."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from noria.clock import SystemClock
from noria.registry import Policies
from noria.surface.cli.context import JsonOption, ProjectOption, actor, clear_errors, open_governed, show


@clear_errors
def rollback(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment, or of its model.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")] = "rolled back by hand",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the traffic back at once: end the rollout under way, else go back to the version before."""
    roll_back_by_hand(ctx, name, reason, project, as_json=as_json)


def roll_back_by_hand(ctx: typer.Context, name: str, reason: str, project: Path | None, *, as_json: bool) -> None:
    """Roll back and tell what serves now.

    Of two operators who do so at once the second is refused: it meant the version that the first has taken back.
    """
    from noria.lifecycle.rolling_back import roll_back

    settings, workspace = open_governed(project)
    policies = Policies.from_settings(settings.policies)
    began = ctx.find_root().obj
    asked_at = began if isinstance(began, datetime) else None
    done = roll_back(workspace, policies, SystemClock(), name, actor=actor(), reason=reason, asked_at=asked_at)
    row = {
        "deployment": done.deployment,
        "serves": done.version.label,
        "stage": done.version.stage.value,
        "how": done.how,
    }
    show([row], as_json=as_json, title="Rolled back")
