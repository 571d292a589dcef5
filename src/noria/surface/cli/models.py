"""`noria models`: list, compare, approve, move, roll back."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.access import Role
from noria.clock import SystemClock
from noria.errors import NotFound
from noria.registry import approve as record_approval
from noria.registry import get_version, list_versions
from noria.registry.approvals import approvals
from noria.registry.models import aliases, get_model, list_models
from noria.registry.stages import history, parse_stage
from noria.store.workspace import artifact_key
from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    actor,
    clear_errors,
    open_records,
    open_workspace,
    out,
    show,
)
from noria.surface.cli.rollback import roll_back_by_hand

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Registered models and their versions.")
ModelArgument = Annotated[str, typer.Argument(help="Name of the registered model.")]
VersionArgument = Annotated[int, typer.Argument(help="Number of the version.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")]


@app.command(name="list")
@clear_errors
def list_(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the models."""
    with open_records(project).database.read() as tx:
        rows = [
            {
                "model": model.name,
                "versions": len(list_versions(tx, model.name)),
                "aliases": ", ".join(f"{alias}={version}" for alias, version in aliases(tx, model.name).items()),
                "created_at": model.created_at,
            }
            for model in list_models(tx)
        ]
    show(rows, as_json=as_json, title="Registered models")


@app.command()
@clear_errors
def versions(model: ModelArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List a model's versions."""
    with open_records(project).database.read() as tx:
        rows = [
            {
                "version": version.version,
                "semantic": version.semantic_version,
                "stage": version.stage.value,
                "trigger": version.tags.get("trigger", ""),
                "created_at": version.created_at,
                "approvals": len(approvals(tx, model, version.version)),
            }
            for version in list_versions(tx, get_model(tx, model).name)
        ]
    show(rows, as_json=as_json, title=f"Versions of {model}")


@app.command()
@clear_errors
def approve(
    model: ModelArgument,
    version: VersionArgument,
    stage: Annotated[str, typer.Option(help="Stage it may enter.")] = "Production",
    reason: ReasonOption = "",
    project: ProjectOption = None,
) -> None:
    """Consent that a version enters a stage."""
    workspace = open_records(project)
    target = parse_stage(stage)
    with workspace.database.write() as tx:
        record_approval(
            tx, model, version, target, at=SystemClock().now(), actor=actor(), reason=reason, roles=[Role.ADMIN]
        )
    out.print(f"{model}@{version} approved for {target} by {actor()}", highlight=False)


@app.command()
@clear_errors
def move(
    model: ModelArgument,
    version: VersionArgument,
    stage: Annotated[str, typer.Argument(help="None, Staging, Production or Archived.")],
    reason: ReasonOption = "",
    project: ProjectOption = None,
) -> None:
    """Move a version to a stage, when the policy allows; one that enters Production is deployed."""
    from noria.lifecycle.operations import move_version
    from noria.pipelines import load_project

    folder, _, workspace = open_workspace(project)
    moved = move_version(
        load_project(folder), workspace, model, version, parse_stage(stage), actor=actor(), reason=reason
    )
    out.print(f"{moved.label} is in {moved.stage}", highlight=False)


@app.command()
@clear_errors
def rollback(
    ctx: typer.Context,
    model: ModelArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.", prompt=True)],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the traffic of a model back at once: `noria rollback` by another name."""
    roll_back_by_hand(ctx, model, reason, project, as_json=as_json)


@app.command()
@clear_errors
def compare(
    model: ModelArgument,
    first: Annotated[int, typer.Argument(help="Number of one version.")],
    second: Annotated[int, typer.Argument(help="Number of the other.")],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions' metrics, tags and origins, side by side."""
    with open_records(project).database.read() as tx:
        one, other = get_version(tx, model, first), get_version(tx, model, second)
    rows: list[dict[str, object]] = [
        {"what": name, str(first): getattr(one, field), str(second): getattr(other, field)}
        for name, field in (("stage", "stage"), ("semantic", "semantic_version"), ("data", "dataset_version_id"))
    ]
    for kind in ("tags", "metrics"):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        rows += [
            {"what": name, str(first): mine.get(name), str(second): theirs.get(name)}
            for name in sorted({*mine, *theirs})
        ]
    for row in rows:
        before, after = row[str(first)], row[str(second)]
        both = isinstance(before, float) and isinstance(after, float)
        row["difference"] = after - before if both else ("" if before == after else "differs")  # type: ignore[operator]
    show(rows, as_json=as_json, title=f"{model}: version {first} and {second}")


@app.command()
@clear_errors
def card(model: ModelArgument, version: VersionArgument, project: ProjectOption = None) -> None:
    """Print a version's model card."""
    workspace = open_records(project)
    with workspace.database.read() as tx:
        found = get_version(tx, model, version)
    try:
        text = workspace.artifacts.read(f"{artifact_key(found.source)}/card.md").decode()
    except NotFound:
        raise NotFound(
            f"{found.label} has no model card",
            remedy=f"`noria run` writes one; of others `noria models lineage {model} {version}` tells the origin.",
        ) from None
    print(text)


@app.command(name="history")
@clear_errors
def history_(model: ModelArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List a model's stage moves."""
    with open_records(project).database.read() as tx:
        rows = [
            {
                "at": move.moved_at,
                "version": move.version,
                "from": move.from_stage.value,
                "to": move.to_stage.value,
                "actor": move.actor,
                "reason": move.reason,
            }
            for move in history(tx, get_model(tx, model).name)
        ]
    show(rows, as_json=as_json, title=f"Stage moves of {model}")
