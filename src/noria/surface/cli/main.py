"""The `noria` command."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import structlog
import typer

from noria.surface.cli import access, audit, interchange, models, upkeep, webhooks
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_workspace, show_sections
from noria.surface.cli.demo import demo
from noria.surface.cli.project import init, run
from noria.surface.cli.servers import serve, server, up
from noria.surface.cli.sweep import sweep

app = typer.Typer(
    name="noria", no_args_is_help=True, add_completion=False, help="Production machine learning as one audited loop."
)
app.command()(demo)
app.command()(init)
app.command()(run)
app.command()(up)
app.command()(serve)
app.command()(server)
app.command()(sweep)
for command in (upkeep.lineage, upkeep.artifacts, upkeep.tag, upkeep.alias, upkeep.delete, upkeep.cleanup):
    models.app.command()(command)
app.add_typer(models.app, name="models")
app.add_typer(audit.app, name="audit")
app.add_typer(access.users, name="users")
app.add_typer(access.tokens, name="tokens")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(interchange.importing, name="import")
app.add_typer(interchange.exporting, name="export")


@app.command()
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


def main() -> None:
    """Entry point: logs to stderr, JSON when that is no terminal."""
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    app()
