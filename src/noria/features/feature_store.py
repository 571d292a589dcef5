"""The feature store of one project, spelled as Feast's: apply definitions, join them to what happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from noria.clock import Clock, SystemClock, as_utc
from noria.errors import InvalidInput, NotFound
from noria.features import catalog, intervals
from noria.features.catalog import Applied, Change, Definition, Definitions, Kind
from noria.features.completion import completed
from noria.features.definitions import Entity, FeatureService, FeatureView
from noria.features.documents import is_elsewhere
from noria.features.health import ViewHealth, view_health
from noria.features.history import AsOf
from noria.features.materialize import Materialized
from noria.features.on_demand import OnDemandFeatureView
from noria.features.online_side import EntityRows, OnlineSide, Progress, PushMode, pushed_views
from noria.features.project_code import read_definitions
from noria.features.repo import Repo, read_repo
from noria.features.retrieval import OnlineResponse, RetrievalJob, event_time_of
from noria.features.selection import Plan, Wanted, find_view, plan
from noria.features.sources import RequestSource, Source
from noria.features.times import earlier
from noria.features.training_frame import engine_of, joined
from noria.ids import process_user
from noria.store.database import from_json, to_json
from noria.store.keyvalue import KeyValueStore
from noria.store.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")
_LOOK_AGAIN_SECONDS = 5.0
_MATERIALIZED: Mapping[str, str] = {"version": "feature_views=[...]: what is applied now is what goes online"}


class _Outdated:
    """A method of older releases of Feast; a ``__getattr__`` would make every attribute of the store slower."""

    def __init__(self, now: str) -> None:
        self._now = now

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, store: object, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__} has no {self._name!r}; write {self._now}")


class FeatureStore:
    """The feature store of the project or Feast repo in ``repo_path``.

    ``workspace`` is its state where that is open already; ``actor`` is who changes are recorded as, the operating
    system's user unless said otherwise. What other processes apply is noticed within five seconds, or at once after
    ``refresh_registry``. Safe to share between threads.
    """

    def __init__(
        self,
        repo_path: str | Path = ".",
        *,
        workspace: Workspace | None = None,
        clock: Clock | None = None,
        actor: str = "",
        **unknown: object,
    ) -> None:
        _refuse("FeatureStore", unknown, {"config": "repo_path=, the folder of feature_store.yaml or noria.toml"})
        self._repo: Repo = read_repo(Path(repo_path))
        self._workspace = workspace or Workspace(self._repo.folder, self._repo.settings)
        self._clock = clock or SystemClock()
        self._actor = actor or process_user()
        self._definitions = Definitions()
        self._revision: tuple[int, int] | None = None
        self._plans: dict[tuple[FeatureService | tuple[str, ...], bool], Plan] = {}
        self._looked_at = 0.0
        self._opening = threading.Lock()
        self._opened: KeyValueStore | None = None
        self._side: OnlineSide | None = None

    get_service = _Outdated(
        "get_feature_service(name), of a service applied before: FeatureService(name=..., features=[...])"
    )
    get_historical_feature = _Outdated("get_historical_features(entity_df=..., features=[...])")

    @property
    def project(self) -> str:
        """The name all definitions belong to."""
        return self._repo.project

    def apply(
        self,
        objects: Definition | Sequence[Definition],
        objects_to_delete: Sequence[Definition] = (),
        partial: bool = True,
    ) -> list[Change]:
        """Record definitions, with the entities and sources of views; what differs becomes a new version.

        ``objects_to_delete`` are taken out of use; with ``partial=False`` so is all that ``objects`` does not hold.
        One transaction, audited. Raises InvalidConfig, and InvalidData when a schema cannot be read off a source.
        """
        wanted = completed([objects] if isinstance(objects, Definition) else objects, self._repo.folder)
        gone = [(catalog.kind_of(one), one.name) for one in objects_to_delete]
        at = self._clock.now()
        with self._workspace.database.write() as tx:
            if not partial:
                kept = {(catalog.kind_of(one), one.name) for one in wanted}
                active = catalog.versions(tx, self.project)
                gone += [(one.kind, one.name) for one in active if one.active and (one.kind, one.name) not in kept]
            changes = catalog.apply(tx, self.project, wanted, at=at, actor=self._actor)
            changes += catalog.delete(tx, self.project, gone, at=at, actor=self._actor)
        self.refresh_registry()
        return changes

    def read_code(self) -> list[Definition]:
        """What the Python files of the project's folder define. Raises InvalidConfig naming file and line."""
        return read_definitions(self._repo.folder)

    def compare(self, objects: Sequence[Definition]) -> list[dict[str, object]]:
        """What applying these, and nothing else, would change, a row a definition: before and after."""
        wanted = {(catalog.kind_of(one), one.name): one.document() for one in completed(objects, self._repo.folder)}
        active = {(one.kind, one.name): one.document for one in self.versions() if one.active}
        rows: list[dict[str, object]] = []
        for kind, name in sorted(wanted.keys() | active.keys()):
            before, after = active.get((kind, name)), wanted.get((kind, name))
            what = "" if before is None or after is None else _difference(before, after)
            if before is None or after is None or what:
                change = "created" if before is None else "deleted" if after is None else "changed"
                rows.append({"kind": kind, "name": name, "change": change, "what": what})
        return rows

    def versions(self, name: str = "") -> list[Applied]:
        """Every version of every definition applied, or of those of one name, the oldest first."""
        with self._workspace.database.read() as tx:
            return catalog.versions(tx, self.project, name)

    def health(self) -> list[ViewHealth]:
        """How fresh and how complete the rows of every view are, and which limits of the settings they break."""
        with self._workspace.database.read() as tx:
            online = intervals.latest(tx, self.project)
        limits, at = self._repo.settings.features.limits, self._clock.now()
        return [
            view_health(view, self._repo.folder, limits, online_until=online.get(view.name), at=at)
            for view in self.list_feature_views()
        ]

    def refresh_registry(self) -> None:
        """Read the definitions again."""
        with self._workspace.database.read() as tx:
            revision = catalog.revision(tx, self.project)
            if revision != self._revision:
                self._definitions = self._with_functions(catalog.load(tx, self.project))
                self._plans = {}
        self._revision, self._looked_at = revision, time.monotonic()

    def list_entities(self) -> list[Entity]:
        """The entities, by name."""
        return list(self._current().entities.values())

    def list_feature_views(self) -> list[FeatureView]:
        """The feature views, by name."""
        return list(self._current().views.values())

    def list_on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand feature views, by name."""
        return list(self._current().on_demand.values())

    def list_feature_services(self) -> list[FeatureService]:
        """The feature services, by name."""
        return list(self._current().services.values())

    def list_data_sources(self) -> list[Source | RequestSource]:
        """The sources, by name."""
        return list(self._current().sources.values())

    def get_entity(self, name: str) -> Entity:
        """The entity of that name. Raises NotFound."""
        return _find(self._current().entities, name, "entity")

    def get_feature_view(self, name: str) -> FeatureView:
        """The feature view of that name. Raises NotFound."""
        return find_view(name, self._current())

    def get_feature_service(self, name: str, **unknown: object) -> FeatureService:
        """The feature service of that name. Raises NotFound."""
        _refuse("get_feature_service", unknown, {"features": "store.apply([FeatureService(name=..., features=[...])])"})
        return _find(self._current().services, name, "feature service")

    def delete(self, kind: Kind, name: str) -> None:
        """Take one definition out of use. Raises NotFound."""
        with self._workspace.database.write() as tx:
            catalog.delete(tx, self.project, [(kind, name)], at=self._clock.now(), actor=self._actor)
        self.refresh_registry()

    def get_historical_features(
        self,
        entity_df: Any = None,
        features: Wanted = (),
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,
        engine: str = "",
        **unknown: object,
    ) -> RetrievalJob:
        """The entity frame with each row's features as they were known at its time.

        ``entity_df`` (pandas, Polars, Arrow) has the join keys and ``event_timestamp``, UTC when it has no zone.
        ``filter_by_created_timestamp=False`` also takes values that were recorded only later: a leak, unless the
        created times say when rows were loaded rather than known. Names are ``feature``, or ``view__feature``.
        ``engine`` is what joins, ``here`` or ``ray``; empty: what the setting `features.engine` says.
        Raises InvalidInput, InvalidData, NotFound; most when the result is asked for.
        """
        _refuse("get_historical_features", unknown, {"feature_refs": "features=[...]"})
        wanted = self._plan(features, full_feature_names)
        as_of: AsOf = "known" if filter_by_created_timestamp else "event"
        if entity_df is None:
            raise InvalidInput("there is no entity frame", remedy="Give entity_df: join keys and event_timestamp.")
        engine = engine or self._repo.settings.features.engine
        engine_of(engine)  # a name that is none is told now, the rest when the result is asked for
        documents = {one.name for one in wanted.answered if one.dtype.is_document}
        return RetrievalJob(entity_df, lambda frame: self._joined(frame, wanted, as_of, engine), documents)

    def get_online_features(
        self,
        features: Wanted = (),
        entity_rows: EntityRows = (),
        full_feature_names: bool = False,
        **unknown: object,
    ) -> OnlineResponse:
        """The features of entities as they are online now; one that is not there, or too old, is None.

        ``entity_rows`` is a list of dictionaries, or a dictionary of lists, by join key. Raises InvalidInput, NotFound,
        and Unavailable when the online store cannot be reached.
        """
        if unknown:
            _refuse("get_online_features", unknown, {"feature_refs": "features=[...]"})
        wanted = self._plan(features, full_feature_names)
        return self._online().lookup(wanted, entity_rows, self._clock.now())

    def materialize(
        self,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        feature_views: Sequence[str] | None = None,
        disable_event_timestamp: bool = False,
        full_feature_names: bool = False,
        force: bool = False,
        progress: Progress | None = None,
        **unknown: object,
    ) -> list[Materialized]:
        """Bring online what happened or became known in [start_date, end_date], of all views or of those named.

        ``disable_event_timestamp``: all that is known by now. A row replaces only older ones, so a run that was killed
        is run again, and several may run at once. ``full_feature_names`` and ``force`` are Feast's, and change nothing.
        """
        _refuse("materialize", unknown, _MATERIALIZED)
        del full_feature_names, force
        if disable_event_timestamp:
            start_date, end_date = None, self._clock.now()
        since, until = _optional_time("start_date", start_date), _time("end_date", end_date)
        if since is not None and since > until:
            raise InvalidInput(
                f"start_date {since.isoformat()} is after end_date {until.isoformat()}",
                remedy="Give the earlier time as start_date.",
            )
        return [self._materialize(view, since, until, progress) for view in self._online_views(feature_views)]

    def materialize_incremental(
        self,
        end_date: datetime,
        feature_views: Sequence[str] | None = None,
        full_feature_names: bool = False,
        force: bool = False,
        progress: Progress | None = None,
        **unknown: object,
    ) -> list[Materialized]:
        """Bring online what is new since each view was last materialized.

        The first time, and once its definition changed, that is all within its TTL.
        """
        _refuse("materialize_incremental", unknown, _MATERIALIZED)
        del full_feature_names, force
        until = _time("end_date", end_date)
        with self._workspace.database.read() as tx:
            applied = {
                one.name: one.applied_at for one in catalog.versions(tx, self.project, kind="view") if one.active
            }
            latest = intervals.latest(tx, self.project, applied)
        done = []
        for view in self._online_views(feature_views):
            begin = latest.get(view.name) or earlier(until, view.ttl)
            done.append(self._materialize(view, begin, until, progress))
        return done

    def push(
        self,
        push_source_name: str,
        df: Any,
        allow_registry_cache: bool = True,
        to: PushMode | str = PushMode.ONLINE,
    ) -> None:
        """Take in rows as they happen, for every view of that push source: online, into its history, or both.

        A push that is refused leaves nothing in the history, and is simply repeated: rows are added to the history
        only when they are online. Raises InvalidInput, InvalidData, NotFound, Unavailable.
        """
        del allow_registry_cache  # as in Feast; what is applied is looked up anew every few seconds anyway
        mode, views = PushMode.of(to), pushed_views(self.list_feature_views(), push_source_name)
        online = self._online()
        rows = [(view, online.shaped(view, df)) for view in views]  # nothing is written of what cannot be read
        if mode is PushMode.ONLINE:
            online.write(rows)
            return
        with online.appending(views[0], df) as publish:
            if mode is PushMode.ONLINE_AND_OFFLINE:
                online.write(rows)
            publish()

    def write_to_online_store(self, feature_view_name: str, df: Any) -> int:
        """Bring rows of one view online; returns how many were newer than what was there."""
        view = self.get_feature_view(feature_view_name)
        return self._online().write([(view, self._online().shaped(view, df))])

    def close(self) -> None:
        """Give the database and the online store back."""
        if self._opened is not None:
            self._opened.close()
        self._workspace.database.close()

    def _current(self) -> Definitions:
        if time.monotonic() - self._looked_at > _LOOK_AGAIN_SECONDS or self._revision is None:
            self.refresh_registry()
        return self._definitions

    def _plan(self, features: Wanted, full_feature_names: bool) -> Plan:
        """What the features take, worked out once."""
        current = self._current()
        key = features if isinstance(features, FeatureService) else tuple(features), full_feature_names
        known = self._plans.get(key)
        if known is None:
            wanted = features if isinstance(features, str) else key[0]
            known = self._plans[key] = plan(wanted, current, full_feature_names=full_feature_names)
        return known

    def _joined(self, frame: pl.DataFrame, wanted: Plan, as_of: AsOf, engine: str) -> pl.DataFrame:
        """The entity frame with the features that were asked for, under their names in the answer."""
        wanted.check_names(frame.columns)
        event_time = event_time_of(frame)
        found = joined(frame, wanted, event_time=event_time, as_of=as_of, folder=self._repo.folder, engine=engine)
        return frame.with_columns(found[one.full_name].alias(one.name) for one in wanted.answered)

    def _online(self) -> OnlineSide:
        """The online side, opened when it is first used."""
        if self._side is None:
            with self._opening:
                if self._side is None:  # another thread may have been first
                    self._opened = self._workspace.open_online()
                    self._side = OnlineSide(self._opened, self._repo.folder)
        return self._side

    def _online_views(self, names: Sequence[str] | None) -> list[FeatureView]:
        if names is None:
            return [view for view in self.list_feature_views() if view.online]
        if isinstance(names, str):
            raise InvalidInput(
                f"feature_views is the text {names!r}", remedy=f"Give a list: feature_views=[{names!r}]."
            )
        return [self.get_feature_view(name) for name in names]

    def _materialize(
        self, view: FeatureView, since: datetime | None, until: datetime, progress: Progress | None
    ) -> Materialized:
        done = self._online().materialize(view, since, until, progress)
        with self._workspace.database.write() as tx:
            intervals.record(
                tx, self.project, view.name, since=since, until=until, rows=done.written, at=self._clock.now()
            )
        return done

    def _with_functions(self, known: Definitions) -> Definitions:
        """The definitions; functions that were not kept are the project's own, where that still says the same."""
        lacking = [name for name, view in known.views.items() if is_elsewhere(view.source)]
        if not lacking:
            return known
        here = {one.name: one for one in read_definitions(self._repo.folder) if isinstance(one, FeatureView)}
        same = [
            name
            for name in lacking
            if name in here and here[name].source.document() == known.views[name].source.document()
        ]
        views = {name: replace(known.views[name], source=here[name].source) for name in same}
        return replace(known, views={**known.views, **views})


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """What two documents of a definition say otherwise."""
    now = from_json(to_json(dict(after)))
    changed = (key for key in now.keys() | before.keys() if now.get(key) != before.get(key))
    return "; ".join(
        f"{key}: {to_json([before.get(key)])[1:-1]} -> {to_json([now.get(key)])[1:-1]}" for key in sorted(changed)
    )


def _find(known: Mapping[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise NotFound(f"there is no {kind} {name!r}", remedy=f"Applied: {', '.join(sorted(known)) or 'none'}.")
    return known[name]


def _time(name: str, given: object) -> datetime:
    if isinstance(given, datetime):
        return as_utc(given)
    raise InvalidInput(f"{name} is {given!r}, no time", remedy="Give a datetime; without a zone it is UTC.")


def _optional_time(name: str, given: object) -> datetime | None:
    return None if given is None else _time(name, given)


def _refuse(what: str, given: Mapping[str, object], outdated: Mapping[str, str]) -> None:
    for name, value in given.items():
        if value is None:  # as good as not given
            continue
        now = f"; write {outdated[name]}" if name in outdated else ""
        raise InvalidInput(f"{what} takes no {name!r}{now}", remedy="Leave it out; help() lists what is taken.")
