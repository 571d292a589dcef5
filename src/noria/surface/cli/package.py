"""`noria package`: a folder that serves a model by itself, and the check that it is still what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    by_default,
    clear_errors,
    open_governed,
    out,
    show,
    talk,
)
from noria.surface.cli.named_routes import named_routes

_DEFAULT = "build"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    cls=by_default(_DEFAULT),
    help="A folder that serves a model by itself: `noria package models:/NAME/3 --output FOLDER`.",
)


@app.command(name=_DEFAULT)
@clear_errors
def build(
    output: Annotated[Path, typer.Option(help="Folder to write the package to.")],
    address: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="models:/NAME/3, models:/NAME/Production or models:/NAME@alias; or give --deployment.",
        ),
    ] = "",
    deployment: Annotated[str, typer.Option(help="What serves under this name now, every variant of it.")] = "",
    base_image: Annotated[str, typer.Option(help="Image to build on; of this Python, slim, by default.")] = "",
    python: Annotated[str, typer.Option(help="Python of the image, such as 3.11, where its tag does not say.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port it listens on.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port for gRPC; 0: none.")] = 0,
    online: Annotated[
        str, typer.Option(help="Online store to look features up in; the project's, or a copy of a local one.")
    ] = "",
    extra: Annotated[
        list[str] | None, typer.Option(help="Extra of Noria, such as redis, or batch; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Replace the package that is in the folder.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a self-contained folder: model, routes, locked requirements, Noria, Dockerfile, SBOM and manifest."""
    from noria.lifecycle.packaging import PackageOptions, Packager
    from noria.serving.package import verify_package
    from noria.serving.package.recipe import default_base_image

    settings, workspace = open_governed(project)
    options = PackageOptions(
        base_image or default_base_image(), python, port, grpc_port, online, tuple(extra or ()), yes
    )
    with talk.status("looking") as status:
        routes = named_routes(settings, workspace, address, deployment, lambda step: status.update(step))
        packager = Packager(workspace, settings, lambda step: status.update(step))
        packager.package(routes, output.resolve(), options)
    row = {
        "deployment": routes.deployment,
        "versions": ", ".join(f"{one.model}@{one.version}" for one in routes.variants),
        "folder": str(output),
        "manifest_sha256": verify_package(output.resolve()).digest,
    }
    show([row], as_json=as_json, title="Packaged")


@app.command(name="verify")
@clear_errors
def verify(
    folder: Annotated[Path, typer.Argument(help="A folder that `noria package` made.")], as_json: JsonOption = False
) -> None:
    """Hold every file of a package against its manifest; exit 1 when one is missing, changed or added."""
    from noria.serving.package.manifest import verify_package

    found = verify_package(folder.resolve())
    if as_json:
        show([{"files": found.files, "manifest_sha256": found.digest}], as_json=True, title="")
    else:
        out.print(f"{found.files} files verified, manifest {found.digest}", highlight=False)
