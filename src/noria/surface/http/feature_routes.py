"""The feature store over HTTP, in the bodies of Feast's feature server, so that its clients work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from noria import features
from noria.access import Permission
from noria.clock import Clock, as_utc, iso
from noria.errors import InvalidInput, NoriaError
from noria.store.workspace import Workspace
from noria.surface.errors import outside, problem
from noria.surface.http.bodies import read_body
from noria.surface.http.guard import identity_of

if TYPE_CHECKING:
    from noria.features import FeatureStore
    from noria.features.retrieval import OnlineResponse


class Lookup(msgspec.Struct):
    """What ``/get-online-features`` takes: references or a service, and the join keys of entities by column."""

    entities: dict[str, list[Any]]
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False


class Push(msgspec.Struct):
    """What ``/push`` takes: rows by column, for every view of a push source."""

    push_source_name: str
    df: dict[str, list[Any]]
    to: str = "online"


class Write(msgspec.Struct):
    """What ``/write-to-online-store`` takes: rows of one view by column."""

    feature_view_name: str
    df: dict[str, list[Any]]


class Materialize(msgspec.Struct):
    """What ``/materialize`` takes; times are RFC 3339, UTC without a zone."""

    end_ts: str
    start_ts: str | None = None
    feature_views: list[str] | None = None


Body = TypeVar("Body", Lookup, Push, Write, Materialize)


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
                asked = _decoded(body, await read_body(request))
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
    return _written(store.get_online_features(wanted, asked.entities, asked.full_feature_names))


def _push(store: FeatureStore, asked: Push) -> object:
    store.push(asked.push_source_name, _frame(asked.df), to=asked.to)
    return None


def _write(store: FeatureStore, asked: Write) -> object:
    store.write_to_online_store(asked.feature_view_name, _frame(asked.df))
    return None


def _materialize(store: FeatureStore, asked: Materialize) -> object:
    since = None if asked.start_ts is None else _instant(asked.start_ts)
    done = store.materialize(since, _instant(asked.end_ts), asked.feature_views)
    return {one.view: {"read": one.read, "written": one.written} for one in done}


def _materialize_incremental(store: FeatureStore, asked: Materialize) -> object:
    done = store.materialize_incremental(_instant(asked.end_ts), asked.feature_views)
    return {one.view: {"read": one.read, "written": one.written} for one in done}


def _written(response: OnlineResponse) -> Mapping[str, object]:
    """The answer as Feast's protocol buffers read in JSON."""
    values = response.to_dict()
    results = [
        {
            "values": values[name],
            "statuses": [status.name for status in column.statuses],
            "event_timestamps": [_rfc_3339(micros) for micros in column.event_timestamps],
        }
        for name, column in response.columns.items()
    ]
    return {"metadata": {"feature_names": list(values)}, "results": results}


def _decoded(kind: type[Body], content: bytes) -> Body:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"the body cannot be read: {error}", remedy="Send what Feast's feature server takes."
        ) from None


def _frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    import polars as pl

    try:
        return pl.DataFrame(dict(columns), strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise InvalidInput(f"df is no table: {error}", remedy="Send columns of equal length.") from None


def _instant(text: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError:
        raise InvalidInput(f"{text!r} is no time", remedy="Write RFC 3339, such as 2026-03-01T12:00:00Z.") from None


def _rfc_3339(micros: int | None) -> str:
    return iso(datetime.fromtimestamp((micros or 0) / 1_000_000, UTC))
