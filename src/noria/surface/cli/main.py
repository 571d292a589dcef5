"""The `noria` command."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Annotated, Any, cast

import structlog
import typer
from typer.core import TyperCommand, TyperGroup

from noria import __version__

_COMMANDS: Mapping[str, str] = {
    "demo": "demo:demo",
    "init": "project:init",
    "run": "project:run",
    "up": "servers:up",
    "serve": "serve:serve",
    "server": "servers:server",
    "worker": "worker:worker",
    "deploy": "deploy:app",
    "rollout": "rollout:app",
    "rollback": "rollback:rollback",
    "predict": "predict:app",
    "bench": "bench:app",
    "package": "package:app",
    "compose": "compose:app",
    "sweep": "sweep:sweep",
    "trace": "trace:trace",
    "models": "upkeep:app",
    "features": "features:app",
    "data": "data:app",
    "audit": "audit:app",
    "users": "access:users",
    "tokens": "access:tokens",
    "webhooks": "webhooks:app",
    "import": "interchange:importing",
    "export": "interchange:exporting",
}
"""By name, not by import: each start would pay for all of them."""


class _Commands(TyperGroup):
    """Loads a command when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = dict.fromkeys(_COMMANDS, cast(TyperCommand, None))  # names alone: "did you mean" goes by them

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperGroup | TyperCommand | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"noria.surface.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            command: TyperGroup | TyperCommand = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(cmd_name)(found)
            command = cast(TyperCommand, typer.main.get_command(alone))
        command.name = cmd_name
        return command


app = typer.Typer(
    name="noria", cls=_Commands, no_args_is_help=True, context_settings={"help_option_names": ["--help", "-h"]}
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"noria {__version__}")
        raise typer.Exit


@app.callback()
def noria(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Production machine learning as one audited loop."""


def main() -> None:
    """Entry point: logs to stderr, JSON when that is no terminal."""
    # LightGBM's threads wait for each other at every split: spinning, they take minutes beside one busy processor.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):  # an arrow or a name that a terminal's encoding lacks is no fault
        sys.stdout.reconfigure(errors="backslashreplace")
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    app(obj=datetime.now(UTC) - timedelta(seconds=time.thread_time()))  # when the process began
