"""`noria predict stream`: the process that consumes, predicts and produces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvloop
from prometheus_client import start_http_server

from noria.clock import SystemClock
from noria.config import ServerSettings
from noria.errors import Unavailable
from noria.lifecycle.batch import variant_named
from noria.rollout.following import RouteFollower
from noria.rollout.routes import RouteTable
from noria.serving import DataPlane
from noria.serving.streams import Ends, Pump, StreamCounts, check_apart, open_reader, open_writer
from noria.serving.streams.brokers import parse_stream
from noria.store.workspace import Workspace
from noria.surface.cli.context import actor, talk
from noria.surface.cli.serve import limits_of
from noria.surface.http.route_files import RouteFiles
from noria.surface.streams import StreamFront

_CHECK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class StreamJob:
    """What is asked for. ``deployment`` is followed; ``model`` is an address that is looked up once."""

    source: str
    sink: str
    dead_letter: str
    group: str
    batch: int
    deployment: str
    model: str
    metrics_port: int | None
    announce: bool


def pump_stream(job: StreamJob, settings: ServerSettings, workspace: Workspace) -> None:
    """Pump until SIGTERM or SIGINT.

    Raises InvalidInput for URLs that name no stream, or one stream for two ends, MissingExtra, NotFound.
    """
    check_apart(job.source, job.sink, job.dead_letter)
    table = None if job.deployment else _pinned(job.model, workspace)
    follower = RouteFollower(workspace)
    if table is None:
        follower.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(job, settings, workspace, table))
    finally:
        if table is None:
            follower.stop()


async def _run(job: StreamJob, settings: ServerSettings, workspace: Workspace, table: RouteTable | None) -> None:
    plane = DataPlane(
        workspace.artifacts,
        workspace.online_url,
        workspace.prediction_log,
        lambda model: limits_of(settings.gateway, model),
    )
    counts = StreamCounts()
    name = job.deployment if table is None else table.deployment
    dead_letters = open_writer(job.dead_letter) if job.dead_letter else None
    ends = Ends(open_reader(job.source, job.group or f"noria-{name}"), open_writer(job.sink), dead_letters)
    front = StreamFront(plane, name)
    pump = Pump(ends, front, counts, job.batch)
    watcher = await _serve(plane, workspace, name, table)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, pump.stop)
    try:
        with _metrics(job.metrics_port, counts, plane) as port:
            _announce(job, port)
            _tell_of_waiting(front)
            await pump.run()
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        plane.close()


async def _serve(plane: DataPlane, workspace: Workspace, name: str, table: RouteTable | None) -> asyncio.Task[None]:
    """Have the plane serve what there is now, and what comes after it."""
    files = RouteFiles(workspace.route_folder, plane, only=name)
    if table is not None:
        await plane.swap(table)
        if (fault := plane.faults.get(name)) is not None:
            raise fault
    else:
        await files.check()

    async def watch() -> None:
        while table is None:
            await asyncio.sleep(_CHECK_SECONDS)
            await files.check()

    return asyncio.create_task(watch())


def _pinned(model: str, workspace: Workspace) -> RouteTable:
    """A table of its own for one version, which no deployment's name is in the way of."""
    clock = SystemClock()
    variant = variant_named(workspace, clock, model, actor(), lambda _: None)
    name = f"{variant.model}-stream"
    return RouteTable(name, 0, (variant,), f"stream of {model}", clock.now())


@contextmanager
def _metrics(port: int | None, counts: StreamCounts, plane: DataPlane) -> Iterator[int]:
    """Answer Prometheus on a port, 0 for a free one. Raises Unavailable when it is taken."""
    if port is None:
        yield 0
        return
    counts.registry.register(plane.metrics)
    try:
        server, thread = start_http_server(port, registry=counts.registry)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on port {port}: {error.strerror}", remedy="Choose another --metrics-port."
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _tell_of_waiting(front: StreamFront) -> None:
    try:
        front.live()
    except Unavailable as error:
        talk.print(f"waiting: {error}", highlight=False, markup=False, soft_wrap=True)


def _announce(job: StreamJob, port: int) -> None:
    if job.announce:
        print(json.dumps({"metrics_port": port}), flush=True)
        return
    source, sink = parse_stream(job.source).shown, parse_stream(job.sink, written=True).shown
    talk.print(f"{source} -> {sink}", highlight=False, markup=False)
    if port:
        talk.print(f"metrics on port {port}", highlight=False)
