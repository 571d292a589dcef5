"""The routes of what serves now, or of what an address names, for those who take them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from noria.clock import Clock
from noria.errors import NotFound
from noria.lifecycle.deploying import Address, version_of
from noria.lifecycle.looks import CHAMPION
from noria.lifecycle.served_forms import check_preview, make_servable, variant_of
from noria.optimize.bundle import bundles_below
from noria.registry import Policies
from noria.registry.models import get_model
from noria.rollout import RouteTable, read_routes
from noria.rollout.deployments import addresses_of, get_deployment, own_name, published_routes
from noria.serving.served import fetch_model
from noria.store.workspace import Workspace

_PORTS = {"redis": 6379, "rediss": 6379, "postgresql": 5432, "postgres": 5432, "http": 80, "https": 443}


def deployment_routes(workspace: Workspace, deployment: str) -> RouteTable:
    """What serves under that name now, every variant of it: as the records say or, without any, its route file.

    Raises NotFound, also for one that was withdrawn.
    """
    if not workspace.has_database:
        return _from_file(workspace, deployment)
    with workspace.database.read() as tx:
        get_deployment(tx, deployment)
        routes = published_routes(tx, deployment)
    if routes is None:
        raise NotFound(
            f"deployment {deployment!r} is withdrawn: it serves nothing", remedy="`noria deploy` brings it back."
        )
    return routes


def asked_ports(workspace: Workspace, routes: RouteTable) -> set[int]:
    """The TCP ports of what the versions ask over a network: the online store, models on other servers."""
    bundles = [bundle for one in routes.variants for _, bundle in bundles_below(fetch_model(workspace.artifacts, one))]
    urls = [str(one.options["url"]) for one in bundles if one.runtime == "remote"]
    urls += [workspace.online_url for one in bundles if one.views]
    parts = [urlsplit(url) for url in urls]
    return {part.port or _PORTS[part.scheme] for part in parts if part.scheme in _PORTS}


def _from_file(workspace: Workspace, deployment: str) -> RouteTable:
    try:
        return read_routes(workspace.route_file(deployment))
    except FileNotFoundError:
        names = ", ".join(sorted(path.stem for path in workspace.route_folder.glob("*.json")))
        raise NotFound(f"nothing here serves as {deployment!r}", remedy=f"There is: {names or 'nothing'}.") from None


def address_routes(
    workspace: Workspace,
    policies: Policies,
    clock: Clock,
    address: Address,
    *,
    actor: str,
    progress: Callable[[str], None] = lambda _: None,
) -> RouteTable:
    """What the address names now, under the name its model is served by; it is prepared, and not deployed.

    Raises PolicyRefused where its policy wants no previews, NotFound, and what preparing raises.
    """
    with workspace.database.read() as tx:
        get_model(tx, address.model)
        version = version_of(tx, address)
    check_preview(policies, version)
    make_servable(workspace, version, at=clock.now(), actor=actor, progress=progress)
    with workspace.database.read() as tx:
        variant = variant_of(tx, version, CHAMPION, 100)
        addresses = addresses_of(tx, version.model)
        name = own_name(tx, version.model)
    reason = f"{version.label} by its address"
    return RouteTable(name, version.version, (variant,), reason, version.created_at, addresses=addresses)
