"""`noria server` and `noria up`: the control plane, and all processes together."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated

import typer

from noria.config import ServerSettings, load_server_settings
from noria.errors import InvalidConfig
from noria.features.repo import is_feast_repo, read_repo
from noria.store.workspace import Workspace
from noria.surface.cli.context import ProjectOption, clear_errors, find_repo, open_workspace, talk
from noria.surface.cli.processes import Child, watch

PortOption = Annotated[
    int | None, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one. noria.toml's by default.")
]
HostOption = Annotated[str | None, typer.Option(help="Address to bind; noria.toml's by default.")]
AnnounceOption = Annotated[bool, typer.Option("--announce", hidden=True, help="Print the port as JSON when ready.")]


@clear_errors
def server(
    project: ProjectOption = None,
    host: HostOption = None,
    port: PortOption = None,
    store: Annotated[str, typer.Option(help="Database URL: sqlite:///PATH or postgresql://USER@HOST/NAME.")] = "",
    artifacts: Annotated[str, typer.Option(help="Artifacts: a folder, s3://BUCKET/PREFIX, gs:// or az://.")] = "",
    announce: AnnounceOption = False,
) -> None:
    """Run the server: MLflow's REST protocol and the console. With --store it needs no project."""
    from noria.surface.http.listen import serve as serve_on
    from noria.surface.http.server import create_app
    from noria.surface.http.sockets import bind

    folder = Path.cwd() if store and project is None else find_repo(project)
    named = {"database": store, "artifacts": artifacts}
    given = {"store": {name: url for name, url in named.items() if url}}
    if is_feast_repo(folder):
        repo = read_repo(folder).settings
        given = {
            "store": {"database": repo.store.database} | given["store"],
            "features": {"online": repo.features.online},
        }
    settings = load_server_settings(folder, given)
    workspace = Workspace(folder, settings)
    _check_exposure(host or settings.server.host, settings)
    listener = bind(host or settings.server.host, settings.server.port if port is None else port)
    application = create_app(folder, workspace, settings)
    serve_on(application, [listener], ready=lambda bound: _announce("server", bound, announce))


@clear_errors
def up(
    project: ProjectOption = None,
    port: PortOption = None,
    gateway_port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port of the gateway.")] = None,
) -> None:
    """Run server, console, gateway and worker together until Ctrl-C."""
    folder, settings, _ = open_workspace(project)
    children: list[Child] = []
    try:
        children.append(Child("server", folder, settings.server.port if port is None else port))
        children.append(Child("serve", folder, settings.gateway.port if gateway_port is None else gateway_port))
        children.append(Child("worker", folder))
        talk.print(f"console and MLflow API  [bold]{children[0].url}[/bold]", highlight=False)
        talk.print(f"predictions             [bold]{children[1].url}/predict[/bold]", highlight=False)
        talk.print("Ctrl-C ends all.")
        watch(children)
    except KeyboardInterrupt:
        pass
    finally:
        for child in children:
            child.stop()


def _check_exposure(host: str, settings: ServerSettings) -> None:
    """Raises InvalidConfig when a server without accounts would be open to other machines."""
    if settings.access.enabled:
        return
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise InvalidConfig(
            f"without accounts the server does not listen on {host}, where other machines reach it",
            remedy="Add an admin with `noria users add NAME --role admin`, and set access.enabled = true.",
        )
    talk.print("[yellow]no accounts: whoever reaches this port may do everything[/yellow] (access.enabled)")


def _announce(name: str, port: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"port": port}), flush=True)
    else:
        talk.print(f"{name} ready on port {port}", highlight=False)
