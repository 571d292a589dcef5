"""The `noria` command."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import structlog
import typer

from noria.surface.cli import access, audit, interchange, models, upkeep
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_workspace, out
from noria.surface.cli.demo import demo
from noria.surface.cli.project import init, run
from noria.surface.cli.servers import serve, server, up

app = typer.Typer(
    name="noria", no_args_is_help=True, add_completion=False, help="Production machine learning as one audited loop."
)
app.command()(demo)
app.command()(init)
app.command()(run)
app.command()(up)
app.command()(serve)
app.command()(server)
models.app.command()(upkeep.cleanup)
app.add_typer(models.app, name="models")
app.add_typer(audit.app, name="audit")
app.add_typer(access.users, name="users")
app.add_typer(access.tokens, name="tokens")
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
    if as_json:
        print(json.dumps(found, default=str))
        return
    for section, content in found.items():
        out.print(f"[bold]{section}[/bold]")
        for line in _lines(content):
            out.print(f"  {line}", markup=False, highlight=False)


def _lines(content: object) -> Iterator[str]:
    """A section's values, one a line; lists are indented below their name."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, list):
                yield f"{name}:"
                yield from (f"  {item}" for item in value)
            elif isinstance(value, Mapping):
                yield f"{name}: " + ", ".join(f"{key} = {item}" for key, item in value.items())
            else:
                yield f"{name}: {'unknown' if value is None else value}"
    elif isinstance(content, list):
        yield from (str(item) for item in content)
    else:
        yield "unknown" if content is None else str(content)


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
