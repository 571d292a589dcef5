"""What `noria package` and `noria deploy k8s` are told to take: an address, or the name of a deployment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from noria.clock import SystemClock
from noria.config import ServerSettings
from noria.errors import InvalidInput
from noria.registry import Policies
from noria.store.workspace import Workspace
from noria.surface.cli.context import actor

if TYPE_CHECKING:
    from noria.rollout import RouteTable


def named_routes(
    settings: ServerSettings, workspace: Workspace, address: str, deployment: str, progress: Callable[[str], None]
) -> RouteTable:
    """The routes of what is named. Raises InvalidInput unless it is one of the two."""
    from noria.lifecycle.deploying import parse_address
    from noria.lifecycle.served_routes import address_routes, deployment_routes

    if bool(address) == bool(deployment):
        raise InvalidInput("name one thing", remedy="Give an address such as models:/NAME/3, or --deployment NAME.")
    if deployment:
        return deployment_routes(workspace, deployment)
    policies = Policies.from_settings(settings.policies)
    wanted = parse_address(address)
    return address_routes(workspace, policies, SystemClock(), wanted, actor=actor(), progress=progress)
