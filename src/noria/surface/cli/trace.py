"""`noria trace`: from a prediction back to everything that made it."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_workspace, show_sections


@clear_errors
def trace(
    prediction_id: Annotated[str, typer.Argument(help="Id that /predict answered with.")],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the way back from a prediction: route, version, approval, run, data, features, commit."""
    from noria.lifecycle.trace import trace as find

    _, _, workspace = open_workspace(project)
    found = find(workspace, prediction_id)
    show_sections(found, as_json=as_json)
