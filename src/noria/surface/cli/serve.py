"""`noria serve`: the gateway, in one process or several."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from noria.config import GatewayLimits, GatewaySettings, ServerSettings, load_server_settings
from noria.errors import InvalidConfig, MissingExtra, Unavailable
from noria.rollout.following import RouteFollower
from noria.store.workspace import Workspace
from noria.surface.cli.context import ProjectOption, clear_errors, find_project, talk
from noria.surface.cli.pool import SHARED_VARIABLE, WorkerPool

if TYPE_CHECKING:
    from noria.serving import DataPlane, Limits
    from noria.surface.http.tls import Tls

_log = structlog.get_logger()


@clear_errors
def serve(
    project: ProjectOption = None,
    host: Annotated[str | None, typer.Option(help="Address to bind; noria.toml's by default.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one. noria.toml's by default.")
    ] = None,
    unix_socket: Annotated[str | None, typer.Option(help="Path of a Unix socket, in place of host and port.")] = None,
    grpc_port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port for gRPC; none by default.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that share the port.")] = None,
    store: Annotated[str, typer.Option(help="Database URL; with it no project is needed.")] = "",
    artifacts: Annotated[str, typer.Option(help="Artifacts: a folder, s3://BUCKET/PREFIX, gs:// or az://.")] = "",
    announce: Annotated[
        bool, typer.Option("--announce", hidden=True, help="Print the port as JSON when ready.")
    ] = False,
    inherit: Annotated[str, typer.Option(hidden=True, help="Of a worker: the descriptors it is given.")] = "",
) -> None:
    """Run the gateway: predictions over REST, the Open Inference Protocol, MLflow's and CloudEvents.

    SIGHUP replaces all workers one by one, SIGTTIN adds a worker, SIGTTOU takes one away; no request is lost.
    """
    folder = Path.cwd() if store and project is None else find_project(project)
    given = {name: url for name, url in {"database": store, "artifacts": artifacts}.items() if url}
    named = {"host": host, "port": port, "grpc_port": grpc_port, "unix_socket": unix_socket, "workers": workers}
    chosen = {name: value for name, value in named.items() if value is not None}
    settings = load_server_settings(folder, {"store": given, "gateway": chosen})
    if inherit:
        descriptors = [int(one) for one in inherit.split(",")]
        _work(folder, settings, Workspace(folder, settings, migrate=False), descriptors)
        return
    with _following(Workspace(folder, settings, migrate=False)):
        if settings.gateway.workers == 1:
            listener = _bind(folder, settings.gateway)
            _check_grpc_port(settings.gateway)
            _outlive_hangups()
            _serve(folder, settings, Workspace(folder, settings, migrate=False), [listener], announce)
        else:
            _pool(folder, settings.gateway, announce)


@contextmanager
def _following(workspace: Workspace) -> Iterator[None]:
    """Within the block, the route files follow the database, if there is one."""
    if not workspace.has_database:
        yield
        return
    follower = RouteFollower(workspace)
    follower.start()
    try:
        yield
    finally:
        follower.stop()


def _outlive_hangups() -> None:
    """A process alone cannot be replaced as workers are: at a SIGHUP it goes on, or ends well with its terminal."""
    has_terminal = sys.stdin is not None and sys.stdin.isatty()

    def hung_up(_number: int, _frame: object) -> None:
        if has_terminal:
            signal.raise_signal(signal.SIGTERM)
        else:
            _log.warning("reload_passed_over", reason="one process cannot replace itself: give --workers 2, or more")

    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else nohup has seen to it
        signal.signal(signal.SIGHUP, hung_up)


def _pool(folder: Path, settings: GatewaySettings, announce: bool) -> None:
    if settings.port and not settings.unix_socket:
        _bind(folder, settings.model_copy(update={"workers": 1})).close()  # which shares with no other gateway
    first = _bind(folder, settings)
    _check_grpc_port(settings)
    address = first.getsockname()
    unused = [first]

    def new_socket() -> socket.socket:
        """The socket bound already, then more on its port; a Unix socket is one for all."""
        if unused:
            return unused.pop()
        return first.dup() if settings.unix_socket else _bind(folder, settings, address[1])

    pool = WorkerPool(sys.argv[1:], new_socket, settings.workers)
    pool.run(lambda: _announce(_port(first), announce))


def _work(folder: Path, settings: ServerSettings, workspace: Workspace, descriptors: list[int]) -> None:
    """Be one of several workers: the last descriptor is where further sockets come from."""
    *sockets, control = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    _serve(folder, settings, workspace, sockets, announce=True, more=control)


def _serve(
    folder: Path,
    settings: ServerSettings,
    workspace: Workspace,
    listeners: list[socket.socket],
    announce: bool,
    more: socket.socket | None = None,
) -> None:
    from noria.surface.http.gateway import Gateway, GatewayOptions
    from noria.surface.http.listen import serve as serve_on

    shared = os.environ.get(SHARED_VARIABLE) if more is not None else None
    tls = _tls(folder, settings.gateway)
    gateway = Gateway(
        GatewayOptions(
            route_folder=workspace.route_folder,
            artifacts=workspace.artifacts,
            online_store=workspace.online_url,
            prediction_log=workspace.prediction_log,
            largest_body_bytes=int(settings.gateway.largest_body_mib * 2**20),
            limits=lambda model: limits_of(settings.gateway, model),
            cors_origins=settings.gateway.cors_origins,
            shared=Path(shared) if shared else None,
            on_changed_definition=settings.features.on_changed_definition,
            rpc=_rpc(settings.gateway, tls),
        )
    )

    def ready(port: int) -> None:
        _announce(port, announce, {name: fault.message for name, fault in gateway.plane.faults.items()})

    serve_on(gateway, listeners, ready=ready, tls=tls, more=more)


def _rpc(settings: GatewaySettings, tls: Tls | None) -> Callable[[DataPlane], Awaitable[Any]] | None:
    """What starts a gRPC server beside HTTP, where one is wanted. Raises MissingExtra without its packages."""
    if not settings.grpc_port:
        return None
    try:
        from noria.surface.grpc.server import start
    except ImportError:
        raise MissingExtra("gRPC needs packages that are not installed", remedy="pip install 'noria[grpc]'") from None
    largest = int(settings.largest_body_mib * 2**20)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return functools.partial(start, address=f"{host}:{settings.grpc_port}", largest_bytes=largest, tls=tls)


def _bind(folder: Path, settings: GatewaySettings, port: int | None = None) -> socket.socket:
    from noria.surface.http.sockets import bind, bind_unix

    if settings.unix_socket:
        return bind_unix(folder / settings.unix_socket)
    return bind(settings.host, settings.port if port is None else port, shared=settings.workers > 1)


def _check_grpc_port(settings: GatewaySettings) -> None:
    """Raises Unavailable when gRPC's port is taken: its server tells so late, and shares it with another gateway's."""
    from noria.surface.http.sockets import bind

    if settings.grpc_port:
        try:
            bind(settings.host, settings.grpc_port).close()
        except Unavailable as error:
            raise Unavailable(error.message, remedy="Choose another with --grpc-port, or end who has it.") from error


def limits_of(settings: GatewaySettings, model: str) -> Limits:
    """What a version of ``model`` takes on."""
    from noria.serving import Limits

    found = next((one for pattern, one in settings.limits.items() if fnmatchcase(model, pattern)), GatewayLimits())
    return Limits(found.queue_rows, found.timeout_seconds, found.concurrency)


def _tls(folder: Path, settings: GatewaySettings) -> Tls | None:
    from noria.surface.http.tls import Tls

    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise InvalidConfig(
            "gateway.tls_certificate and gateway.tls_key belong together", remedy="Give both PEM files, or neither."
        )
    if not settings.tls_certificate:
        return None
    return Tls(folder / settings.tls_certificate, folder / settings.tls_key)


def _port(listener: socket.socket) -> int:
    address = listener.getsockname()
    return int(address[1]) if isinstance(address, tuple) else 0


def _announce(port: int, as_json: bool, refused: Mapping[str, str] | None = None) -> None:
    """Say where the gateway is, and of which deployments it could load nothing; see ``pool``."""
    if as_json:
        print(json.dumps({"port": port, "refused": refused or {}}), flush=True)
    else:
        talk.print(f"gateway ready on port {port}" if port else "gateway ready", highlight=False)
