"""`noria compose`: versions made of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.clock import SystemClock
from noria.registry import ModelVersion, Policies
from noria.surface.cli.context import JsonOption, ProjectOption, actor, clear_errors, open_governed, show

if TYPE_CHECKING:
    from noria.lifecycle.composing import Composer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Register versions made of others: chains, ensembles, models on other servers.",
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Model to register the version under.")]
_ADDRESS = "models:/NAME/3, models:/NAME/Production or models:/NAME@alias."


@app.command(name="chain")
@clear_errors
def chain(
    name: NameArgument,
    address: Annotated[str, typer.Argument(metavar="MODEL", help=_ADDRESS)],
    transformer: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Python file with preprocess(), postprocess() or both.")
    ],
    beside: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="A file it imports or reads; repeat.")
    ] = None,
    requirement: Annotated[
        list[str] | None, typer.Option(help="A package it needs, as pip names them; repeat. Without any: Noria's own.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a transformer before a model, behind it, or both."""
    made = _composer(project).chain(name, address, transformer, beside=beside or [], requirements=requirement or [])
    _show(made, as_json)


@app.command(name="ensemble")
@clear_errors
def ensemble(
    name: NameArgument,
    addresses: Annotated[list[str], typer.Argument(metavar="MODEL...", help=_ADDRESS)],
    combine: Annotated[str, typer.Option(help="mean, median or vote.")] = "mean",
    weight: Annotated[list[float] | None, typer.Option(help="Weight of each model, in their order; repeat.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let several models that predict the same thing answer together."""
    _show(_composer(project).ensemble(name, addresses, combine=combine, weights=weight or []), as_json)


@app.command(name="remote")
@clear_errors
def remote(
    name: NameArgument,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of the other server, such as http://10.0.0.7:8080.")
    ],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    protocol: Annotated[str, typer.Option(help="v2 (Open Inference) or openai (chat completions).")] = "v2",
    seconds: Annotated[float, typer.Option(help="Longest wait for an answer.")] = 30.0,
    key_variable: Annotated[str, typer.Option(help="Environment variable of the gateway that holds its key.")] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model that another server runs: routed, rolled out and logged like any other."""
    made = _composer(project).remote(name, url, model, protocol=protocol, seconds=seconds, key_variable=key_variable)
    _show(made, as_json)


def _composer(project: Path | None) -> Composer:
    from noria.lifecycle.composing import Composer

    settings, workspace = open_governed(project)
    return Composer(workspace, Policies.from_settings(settings.policies), SystemClock(), actor())


def _show(version: ModelVersion, as_json: bool) -> None:
    row = {
        "model": version.model,
        "version": version.version,
        "kind": version.algorithm,
        "members": version.tags["noria.members"],
        "deploy": f"noria deploy models:/{version.model}/{version.version}",
    }
    show([row], as_json=as_json, title="Registered")
