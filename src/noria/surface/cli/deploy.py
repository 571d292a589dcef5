"""`noria deploy`: give a model a name under which it is served; keys; manifests for a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.clock import SystemClock
from noria.registry import Policies, Stage, version_in_stage
from noria.rollout import RouteTable, Variant
from noria.rollout.deployments import (
    Deployment,
    add_key,
    addresses_of,
    all_deployments,
    drop_keys,
    get_deployment,
    list_keys,
    revoke_key,
    routes_now,
    serves_production,
    tell_gateways,
    withdraw,
)
from noria.store.database import Transaction
from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    actor,
    by_default,
    clear_errors,
    open_governed,
    open_records,
    out,
    show,
    talk,
)
from noria.surface.cli.kubernetes import k8s

_DEFAULT = "model"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    cls=by_default(_DEFAULT),
    help="What is served under which name: `noria deploy models:/NAME/3`.",
)
keys = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Keys that requests to a deployment must come with."
)
app.add_typer(keys, name="keys")
app.command(name="k8s")(k8s)
NameArgument = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")]


@app.command(name=_DEFAULT)
@clear_errors
def model(
    address: Annotated[
        str, typer.Argument(metavar="MODEL", help="models:/NAME/3, models:/NAME/Production or models:/NAME@alias.")
    ],
    name: Annotated[str, typer.Option(help="Name of the deployment; the model's own by default.")] = "",
    unit: Annotated[str, typer.Option(help="Entity key by which requests are assigned to variants.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a version for serving and give it all the traffic; an alias or stage is followed from then on."""
    from noria.lifecycle.deploying import deploy, parse_address

    settings, workspace = open_governed(project)
    wanted = parse_address(address)
    with talk.status("looking") as status:
        done = deploy(
            workspace,
            Policies.from_settings(settings.policies),
            SystemClock(),
            wanted,
            actor=actor(),
            reason=reason,
            deployment=name,
            unit=unit,
            progress=lambda step: status.update(f"{wanted.model}: {step}"),
        )
    row = {
        "deployment": done.routes.deployment,
        "model": done.version.model,
        "version": done.version.version,
        "stage": done.version.stage.value,
        "revision": done.routes.revision,
        "prepared": "; ".join(done.notes) or "as it was registered",
    }
    show([row], as_json=as_json, title="Deployed")


@app.command(name="list")
@clear_errors
def list_(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the deployments: what serves now, with which shares, and what they follow."""
    with open_records(project).database.read() as tx:
        rows = []
        for one in all_deployments(tx):
            routes = routes_now(tx, one.deployment)
            shares = [] if routes is None else [_share(variant) for variant in routes.variants]
            beside = _production_beside(tx, one, routes)
            rows.append(
                {
                    "deployment": one.deployment,
                    "model": one.model,
                    "follows": _follows(tx, one, None if as_json else beside),
                    "serves": ", ".join(shares),
                    "revision": 0 if routes is None else routes.revision,
                    "withdrawn_at": one.withdrawn_at,
                    **({"production_beside": beside} if as_json else {}),
                }
            )
    show(rows, as_json=as_json, title="Deployments")


def _production_beside(tx: Transaction, one: Deployment, routes: RouteTable | None) -> int | None:
    """The version in Production, where a deployment that follows nothing is the model's own and serves another."""
    if one.follows or one.withdrawn_at is not None or not serves_production(tx, one.deployment, one.model):
        return None
    production = version_in_stage(tx, one.model, Stage.PRODUCTION)
    serves = None if routes is None else routes.variants[0].version
    return None if production is None or production.version == serves else production.version


def _follows(tx: Transaction, one: Deployment, beside: int | None) -> str:
    """What it follows; of an alias that was deleted, or a stage that was left, that the last version serves on.

    Nothing moves one that follows nothing: where another version is in Production ``beside``, that is told.
    """
    if beside is not None:
        return f"nothing, though version {beside} is in Production"
    gone = one.follows and one.follows.removeprefix("@") not in addresses_of(tx, one.model)
    return f"{one.follows}, which is gone" if gone else one.follows


def _share(variant: Variant) -> str:
    return f"{variant.name} {variant.model}@{variant.version} {round(variant.percent, 1):g}%"


@app.command(name="withdraw")
@clear_errors
def withdraw_(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    project: ProjectOption = None,
) -> None:
    """Serve a deployment no longer; deploying it again brings it back."""
    workspace = open_records(project)
    if not yes:
        typer.confirm(f"Withdraw {name}? Its clients get no more answers.", abort=True, err=True)
    with workspace.database.write() as tx:
        withdraw(tx, name, at=SystemClock().now(), actor=actor(), reason=reason)
    tell_gateways(workspace, name)
    out.print(f"{name} is withdrawn", highlight=False)


@keys.command(name="add")
@clear_errors
def add(
    deployment: NameArgument,
    name: Annotated[str, typer.Option(help="Whose key it is.")] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key; from the first one on, requests without a key are refused. It is shown this once."""
    workspace = open_records(project)
    with workspace.database.write() as tx:
        key, secret = add_key(tx, deployment, name, at=SystemClock().now(), actor=actor())
    tell_gateways(workspace, deployment)
    show([{"key_id": key.key_id, "deployment": deployment, "key": secret}], as_json=as_json, title="Keep this key")


@keys.command(name="list")
@clear_errors
def list_keys_(
    deployment: Annotated[str | None, typer.Argument(help="Of one deployment; of all by default.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys."""
    with open_records(project).database.read() as tx:
        found = list_keys(tx, deployment)
        if deployment is not None and not found:
            get_deployment(tx, deployment)  # tells of a name that is none
    rows = [
        {
            "key_id": key.key_id,
            "deployment": key.deployment,
            "name": key.name,
            "created_at": key.created_at,
            "created_by": key.created_by,
            "revoked_at": key.revoked_at,
        }
        for key in found
    ]
    show(rows, as_json=as_json, title="Keys")


@keys.command(name="revoke")
@clear_errors
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of the key, as `noria deploy keys list` shows.")],
    project: ProjectOption = None,
) -> None:
    """Take a key's right away. Without any key left nobody is let in, until `noria deploy keys drop`."""
    workspace = open_records(project)
    with workspace.database.write() as tx:
        deployment = next((key.deployment for key in list_keys(tx) if key.key_id == key_id), "")
        revoke_key(tx, key_id, at=SystemClock().now(), actor=actor())
    tell_gateways(workspace, deployment)
    out.print(f"{key_id} is revoked", highlight=False)


@keys.command(name="drop")
@clear_errors
def drop(
    deployment: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    project: ProjectOption = None,
) -> None:
    """Forget all keys of a deployment: requests need none again."""
    workspace = open_records(project)
    if not yes:
        typer.confirm(f"Let everyone use {deployment} without a key?", abort=True, err=True)
    with workspace.database.write() as tx:
        dropped = drop_keys(tx, deployment, at=SystemClock().now(), actor=actor())
    tell_gateways(workspace, deployment)
    out.print(f"{deployment} needs no key; {dropped} forgotten", highlight=False)
