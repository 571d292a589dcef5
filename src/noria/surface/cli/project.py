"""`noria init` and `noria run`: a user's own project."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from noria.errors import AlreadyExists
from noria.store.workspace import Workspace
from noria.surface.cli.context import JsonOption, ProjectOption, actor, clear_errors, find_project, out, spinner, talk

_TEMPLATE = Path(__file__).parent / "template"


@clear_errors
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; made when missing.")] = Path(),
) -> None:
    """Write the three files of a small working project: noria.toml, features.py, train.py."""
    files = sorted(_TEMPLATE.glob("*.template"))
    targets = [folder / file.name.removesuffix(".template") for file in files]
    if taken := [target.name for target in targets if target.exists()]:
        raise AlreadyExists(f"{folder.resolve()} has {', '.join(taken)} already", remedy="Choose an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for file, target in zip(files, targets, strict=True):
        target.write_text(file.read_text())
    first = "" if folder == Path() else f"cd {shlex.quote(str(folder))}, then "
    out.print(f"wrote {', '.join(target.name for target in targets)}; next: {first}noria run", highlight=False)


@clear_errors
def run(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Train a version of the project's model, register it, and deploy it when the policy allows."""
    from noria.lifecycle.operations import train_now
    from noria.pipelines import load_project

    loaded = load_project(find_project(project))
    workspace = Workspace(loaded.folder, loaded.settings)
    with spinner() as bar:
        task = bar.add_task("starting", total=None)
        version, refusal = train_now(
            loaded, workspace, actor=actor(), progress=lambda text: bar.update(task, description=text)
        )
    document = {
        "version": version.version,
        "semantic_version": version.semantic_version,
        "stage": version.stage.value,
        "metrics": dict(version.metrics),
        "unmet": [] if refusal is None else list(refusal.details),
    }
    if as_json:
        print(json.dumps(document))
    else:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in version.metrics.items() if "." not in name)
        out.print(f"{version.label} ({version.semantic_version}) is in {version.stage}: {shown}", highlight=False)
    if refusal is not None:
        talk.print(str(refusal), markup=False, highlight=False)
        talk.print(
            f"After mending: noria models approve {version.model} {version.version}, then "
            f"noria models move {version.model} {version.version} Production",
            highlight=False,
        )
        raise typer.Exit(3)
