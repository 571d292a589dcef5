"""The feature store over HTTP, in the bodies of Feast's feature server, so that its clients work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from noria import features
from noria.access import Permission
from noria.clock import Clock
from noria.errors import InvalidData, InvalidInput, NoriaError
from noria.features.online_side import pushed_views
from noria.features.types import UnixTimestamp
from noria.store.workspace import Workspace
from noria.surface.errors import outside, problem
from noria.surface.http.bodies import read_body
from noria.surface.http.feature_bodies import (
    Body,
    Lookup,
    Materialize,
    Push,
    Write,
    decoded,
    frame_of,
    instant,
    written,
)
from noria.surface.http.guard import identity_of

if TYPE_CHECKING:
    from noria.features import FeatureStore, FeatureView
    from noria.features.materialize import Materialized


def feature_routes(folder: Path, workspace: Workspace, clock: Clock) -> list[BaseRoute]:
    """The routes over the feature store of the project in ``folder``; it is opened by the first request."""
    stores: list[FeatureStore] = []
    opening = Lock()

    def store() -> FeatureStore:
        with opening:
            if not stores:
                stores.append(features.FeatureStore(folder, workspace=workspace, clock=clock, actor="server"))
        return stores[0]

    def route(
        path: str, body: type[Body], permission: Permission, answer: Callable[[FeatureStore, Body], object]
    ) -> Route:
        async def handle(request: Request) -> Response:
            try:
                identity_of(request).require(permission)
                asked = decoded(body, await read_body(request))
                found = await run_in_threadpool(lambda: answer(store(), asked))
            except NoriaError as error:
                content = msgspec.json.encode(problem(error))
                return Response(content, outside(error).status, media_type="application/problem+json")
            return Response(msgspec.json.encode(found), media_type="application/json")

        return Route(path, handle, methods=["POST"])

    return [
        route("/get-online-features", Lookup, Permission.READ, _look_up),
        route("/push", Push, Permission.WRITE, _push),
        route("/write-to-online-store", Write, Permission.WRITE, _write),
        route("/materialize", Materialize, Permission.WRITE, _materialize),
        route("/materialize-incremental", Materialize, Permission.WRITE, _materialize_incremental),
    ]


def _look_up(store: FeatureStore, asked: Lookup) -> object:
    wanted = store.get_feature_service(asked.feature_service) if asked.feature_service else asked.features
    return written(store.get_online_features(wanted, asked.entities, asked.full_feature_names))


def _push(store: FeatureStore, asked: Push) -> object:
    views = pushed_views(store.list_feature_views(), asked.push_source_name)
    with _told_to_the_client():
        store.push(asked.push_source_name, frame_of(asked.df, _instants(views)), to=asked.to)
    return None


def _write(store: FeatureStore, asked: Write) -> object:
    view = store.get_feature_view(asked.feature_view_name)
    with _told_to_the_client():
        store.write_to_online_store(view.name, frame_of(asked.df, _instants([view])))
    return None


def _materialize(store: FeatureStore, asked: Materialize) -> object:
    if asked.disable_event_timestamp:
        return _done(store.materialize(feature_views=asked.feature_views, disable_event_timestamp=True))
    since = None if asked.start_ts is None else instant(asked.start_ts)
    return _done(store.materialize(since, instant(asked.end_ts), asked.feature_views))


def _materialize_incremental(store: FeatureStore, asked: Materialize) -> object:
    return _done(store.materialize_incremental(instant(asked.end_ts), asked.feature_views))


def _done(views: Sequence[Materialized]) -> object:
    return {one.view: {"read": one.read, "written": one.written} for one in views}


def _instants(views: Sequence[FeatureView]) -> list[str]:
    return [one.name for view in views for one in view.columns if one.dtype == UnixTimestamp]


@contextmanager
def _told_to_the_client() -> Iterator[None]:
    """Rows that cannot be taken were sent by whoever asks: theirs is the error."""
    try:
        yield
    except InvalidData as error:
        raise InvalidInput(error.message, remedy=error.remedy, details=error.details) from error
