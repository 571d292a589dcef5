"""The catalog of a feature store: every definition applied, every version of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, update

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import NotFound
from noria.features.definitions import Entity, FeatureService, FeatureView, content_hash
from noria.features.documents import read_entity, read_on_demand, read_service, read_source, read_view
from noria.features.function_code import dump, dump_source
from noria.features.on_demand import OnDemandFeatureView
from noria.features.sources import FrameSource, PushSource, RequestSource, Source
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import feature_definitions

Kind = Literal["entity", "source", "view", "on_demand_view", "service"]
Definition = Entity | Source | RequestSource | FeatureView | OnDemandFeatureView | FeatureService
_TABLE = feature_definitions


@dataclass(frozen=True, slots=True)
class Applied:
    """One version of a definition: what it was called, what it said, and who applied it when."""

    kind: Kind
    name: str
    version: int
    content_hash: str
    document: Mapping[str, object]
    active: bool
    applied_at: datetime
    applied_by: str


@dataclass(frozen=True, slots=True)
class Change:
    """What applying did to one definition."""

    kind: Kind
    name: str
    version: int
    what: Literal["created", "changed", "unchanged", "deleted"]


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything a feature store knows now, by name."""

    entities: Mapping[str, Entity] = field(default_factory=dict)
    sources: Mapping[str, Source | RequestSource] = field(default_factory=dict)
    views: Mapping[str, FeatureView] = field(default_factory=dict)
    on_demand: Mapping[str, OnDemandFeatureView] = field(default_factory=dict)
    services: Mapping[str, FeatureService] = field(default_factory=dict)


def kind_of(definition: Definition) -> Kind:
    """What a definition is."""
    if isinstance(definition, Entity):
        return "entity"
    if isinstance(definition, FeatureView):
        return "view"
    if isinstance(definition, OnDemandFeatureView):
        return "on_demand_view"
    return "service" if isinstance(definition, FeatureService) else "source"


def apply(
    tx: Transaction, project: str, definitions: Sequence[Definition], *, at: datetime, actor: str
) -> list[Change]:
    """Record what is new or differs as a new version, in one audited change; the same again changes nothing."""
    changes = [_apply_one(tx, project, one, at, actor) for one in definitions]
    _audit(tx, project, "features.apply", changes, at, actor)
    return changes


def delete(
    tx: Transaction, project: str, wanted: Sequence[tuple[Kind, str]], *, at: datetime, actor: str
) -> list[Change]:
    """Take definitions out of use; their versions stay in the catalog. Raises NotFound."""
    changes = []
    for kind, name in wanted:
        last = _last(tx, project, kind, name)
        if last is None or not last.active:
            raise NotFound(
                f"the feature store has no {kind} {name!r}", remedy="`noria features list` shows what it has."
            )
        tx.execute(update(_TABLE).where(_is(project, kind, name), _TABLE.c.version == last.version).values(active=0))
        changes.append(Change(kind, name, last.version, "deleted"))
    _audit(tx, project, "features.delete", changes, at, actor)
    return changes


def load(tx: Transaction, project: str) -> Definitions:
    """All definitions in use."""
    found: dict[str, dict[str, Mapping[str, object]]] = {kind: {} for kind in get_args(Kind)}
    code: dict[tuple[str, str], str] = {}
    columns = (_TABLE.c.kind, _TABLE.c.name, _TABLE.c.document, _TABLE.c.code)
    query = select(*columns).where(_TABLE.c.project == project, _TABLE.c.active == 1)
    for kind, name, document, stored in tx.execute(query.order_by(_TABLE.c.name)):
        found[kind][name] = from_json(document)
        code[kind, name] = stored
    views = {name: read_view(document, code["view", name]) for name, document in found["view"].items()}
    on_demand = {
        name: read_on_demand(document, code["on_demand_view", name], views)
        for name, document in found["on_demand_view"].items()
    }
    return Definitions(
        {name: read_entity(document) for name, document in found["entity"].items()},
        {name: read_source(document) for name, document in found["source"].items()},
        views,
        on_demand,
        {name: read_service(document, views, on_demand) for name, document in found["service"].items()},
    )


def versions(tx: Transaction, project: str, name: str = "", kind: Kind | None = None) -> list[Applied]:
    """Every version applied, of one name and kind or of all, the oldest first."""
    query = select(_TABLE).where(_TABLE.c.project == project)
    if name:
        query = query.where(_TABLE.c.name == name)
    if kind is not None:
        query = query.where(_TABLE.c.kind == kind)
    return [_applied(row) for row in tx.execute(query.order_by(_TABLE.c.kind, _TABLE.c.name, _TABLE.c.version))]


def view_as_of(tx: Transaction, project: str, name: str, content_hash: str) -> FeatureView | None:
    """A view as one version of its definition says, if that was ever applied."""
    query = select(_TABLE.c.document, _TABLE.c.code).where(_is(project, "view", name))
    row = tx.execute(query.where(_TABLE.c.content_hash == content_hash).limit(1)).first()
    return None if row is None else read_view(from_json(row.document), row.code)


def by_hash(tx: Transaction, hashes: Sequence[str]) -> dict[str, Applied]:
    """The versions with these hashes, of whatever project; of several with one hash the last applied."""
    query = select(_TABLE).where(_TABLE.c.content_hash.in_(hashes)).order_by(_TABLE.c.applied_at)
    return {row.content_hash: _applied(row) for row in tx.execute(query)}


def revision(tx: Transaction, project: str) -> tuple[int, int]:
    """What changes whenever a definition of the project does."""
    query = select(func.count(), func.coalesce(func.sum(_TABLE.c.active), 0)).where(_TABLE.c.project == project)
    rows, active = tx.execute(query).one()
    return int(rows), int(active)


def _apply_one(tx: Transaction, project: str, one: Definition, at: datetime, actor: str) -> Change:
    kind, digest = kind_of(one), content_hash(one)
    last = _last(tx, project, kind, one.name)
    if last is not None and last.active and last.content_hash == digest:
        return Change(kind, one.name, last.version, "unchanged")
    if last is not None:
        tx.execute(update(_TABLE).where(_is(project, kind, one.name)).values(active=0))
    version = 1 if last is None else last.version + 1
    tx.execute(
        insert(_TABLE).values(
            project=project,
            kind=kind,
            name=one.name,
            version=version,
            content_hash=digest,
            document=to_json(dict(one.document())),
            code=b64encode(_code(one)).decode(),
            active=1,
            applied_at=to_millis(at),
            applied_by=actor,
        )
    )
    return Change(kind, one.name, version, "created" if last is None else "changed")


def _code(definition: Definition) -> bytes:
    """What another process needs to run a definition's function."""
    if isinstance(definition, OnDemandFeatureView):
        return dump(definition.transformation)
    source = definition.source if isinstance(definition, FeatureView) else None
    batch = source.batch_source if isinstance(source, PushSource) else source
    return dump_source(batch.function) if isinstance(batch, FrameSource) else b""


def _audit(tx: Transaction, project: str, action: str, changes: Sequence[Change], at: datetime, actor: str) -> None:
    done = [change for change in changes if change.what != "unchanged"]
    if not done:
        return
    changed = [
        (_TABLE, (project, change.kind, change.name, version))
        for change in done
        for version in range(max(change.version - 1, 1), change.version + 1)
    ]
    detail = {"definitions": [f"{change.kind} {change.name} v{change.version}: {change.what}" for change in done]}
    audit.append(tx, at=at, actor=actor, action=action, subject=f"features:{project}", detail=detail, changed=changed)


def _last(tx: Transaction, project: str, kind: Kind, name: str) -> Row[tuple[object, ...]] | None:
    query = select(_TABLE).where(_is(project, kind, name)).order_by(_TABLE.c.version.desc()).limit(1)
    return tx.execute(query).first()


def _is(project: str, kind: str, name: str) -> ColumnElement[bool]:
    return and_(_TABLE.c.project == project, _TABLE.c.kind == kind, _TABLE.c.name == name)


def _applied(row: Row[tuple[object, ...]]) -> Applied:
    return Applied(
        row.kind,
        row.name,
        row.version,
        row.content_hash,
        from_json(row.document),
        bool(row.active),
        from_millis(row.applied_at),
        row.applied_by,
    )
