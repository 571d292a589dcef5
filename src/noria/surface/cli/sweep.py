"""`noria sweep`: a hyperparameter sweep from the command line."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from noria import tracking
from noria.errors import InvalidInput
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, find_project, out


@clear_errors
def sweep(
    objective: Annotated[str, typer.Argument(help="module:function, found from the working directory.")],
    trials: Annotated[int, typer.Option(help="Trials in all; a sweep that has some goes on.")] = 50,
    workers: Annotated[int, typer.Option(help="Processes at once.")] = 1,
    name: Annotated[str, typer.Option(help="Name of the sweep; the function's by default.")] = "",
    experiment: Annotated[str | None, typer.Option(help="Experiment of its runs; made when it is new.")] = None,
    space: Annotated[str, typer.Option(help="Name of the search space in the same module; none by default.")] = "",
    minimize: Annotated[bool, typer.Option("--minimize", help="The smallest value is best.")] = False,
    metric: Annotated[str, typer.Option(help="Metric that the value is logged as.")] = "objective",
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the best params of an objective; every trial is a run, and a sweep that was stopped goes on."""
    module, _, function = objective.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    if project is not None or not any(os.environ.get(f"{owner}_TRACKING_URI") for owner in ("NORIA", "MLFLOW")):
        tracking.set_tracking_uri(find_project(project))
    found = tracking.sweep(
        _get(module, function),
        search_space=_get(module, space) if space else None,
        trials=trials,
        workers=workers,
        name=name or function,
        experiment=experiment,
        direction="minimize" if minimize else "maximize",
        metric=metric,
        seed=seed,
    )
    if as_json:
        print(json.dumps(asdict(found), default=str))
        return
    out.print(f"best {metric} {found.best_value:.6g} by run {found.best_run_id}", highlight=False)
    for key, value in found.best_params.items():
        out.print(f"  {key} = {value}", highlight=False, markup=False)


def _get(module: str, name: str) -> Any:
    """The object of that name in a module of the working directory. Raises InvalidInput."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"{module}:{name} cannot be loaded: {error}", remedy="Write module:function, from the module's folder."
        ) from error
