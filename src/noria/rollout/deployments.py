"""Deployments: what is served under which name, by which keys, and the files gateways read it from."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy import Row, delete, insert, select, update

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, CorruptArtifact, InvalidInput, NoriaError, NotFound
from noria.ids import new_id
from noria.registry import Stage, version_in_stage
from noria.registry.models import aliases
from noria.rollout.moves import check_none_open
from noria.rollout.plan import Strategy
from noria.rollout.records import latest_shares, open_rollout
from noria.rollout.route_records import current_routes, note
from noria.rollout.routes import RouteTable, publish, unpublish
from noria.store import tables
from noria.store.blobs import discard_stale
from noria.store.database import Transaction, from_json
from noria.store.workspace import Workspace

_LONGEST_NAME = 200
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f]")
_NO_KEY = "none"
"""In place of hashes when every key is revoked: no key has this hash, so nobody is let in."""
_KEY_PREFIX = "nk_"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A name under which a model is served. ``follows`` is the alias (@name) or stage whose version it serves."""

    deployment: str
    model: str
    follows: str
    unit: str
    created_at: datetime
    created_by: str
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """A key that requests to a deployment may come with; the key itself is not kept."""

    key_id: str
    deployment: str
    name: str
    created_at: datetime
    created_by: str
    revoked_at: datetime | None


def save_deployment(
    tx: Transaction, deployment: str, model: str, *, follows: str, unit: str, at: datetime, actor: str
) -> Deployment:
    """Record what a name stands for; one that was withdrawn is served again.

    Raises InvalidInput for a name that is no file's name.
    """
    _check_name(deployment)
    before = find_deployment(tx, deployment)
    values = {"model": model, "follows": follows, "unit": unit, "withdrawn_at": None}
    table = tables.deployments
    if before is None:
        created = {"created_at": to_millis(at), "created_by": actor}
        tx.execute(insert(table).values(deployment=deployment, **values, **created))
    elif (before.model, before.follows, before.unit, before.withdrawn_at) == (model, follows, unit, None):
        return before
    else:
        tx.execute(update(table).where(table.c.deployment == deployment).values(values))
    detail: dict[str, object] = {"model": model, "follows": follows, "unit": unit}
    note(tx, deployment, "deployment.set", detail, _row(deployment), at=at, actor=actor)
    return get_deployment(tx, deployment)


def _check_name(deployment: str) -> None:
    """A name is that of a file, and gateways would be kept from all routes by one that the disk does not take."""
    sound = deployment == deployment.strip(". ") and not _NOT_IN_NAMES.search(deployment)
    if not deployment or not sound:
        remedy = "Use letters, digits, - and _; --name gives one to a model whose own name is none."
        raise InvalidInput(f"{deployment!r} is no name of a deployment", remedy=remedy)
    if (size := len(deployment.encode(errors="surrogatepass"))) > _LONGEST_NAME:
        raise InvalidInput(
            f"the deployment's name {deployment[:20]!r}... has {size} bytes",
            remedy=f"Give one of {_LONGEST_NAME} at most: files are named so.",
        )


def withdraw(tx: Transaction, deployment: str, *, at: datetime, actor: str, reason: str) -> None:
    """Serve a deployment no longer. Raises NotFound, Conflict with a rollout under way or where it is withdrawn."""
    get_deployment(tx, deployment)
    check_served(tx, deployment)
    check_none_open(tx, deployment)
    table = tables.deployments
    tx.execute(update(table).where(table.c.deployment == deployment).values(withdrawn_at=to_millis(at)))
    note(tx, deployment, "deployment.withdraw", {"reason": reason}, _row(deployment), at=at, actor=actor)


def find_deployment(tx: Transaction, deployment: str) -> Deployment | None:
    """The deployment of that name, also a withdrawn one, or None."""
    row = tx.execute(select(tables.deployments).where(tables.deployments.c.deployment == deployment)).first()
    return None if row is None else _deployment(row)


def get_deployment(tx: Transaction, deployment: str) -> Deployment:
    """The deployment of that name. Raises NotFound."""
    found = find_deployment(tx, deployment)
    if found is None:
        raise NotFound(f"there is no deployment {deployment!r}", remedy="`noria deploy list` shows all.")
    return found


def check_served(tx: Transaction, deployment: str) -> None:
    """Raises Conflict for a deployment that was withdrawn."""
    record = find_deployment(tx, deployment)
    if record is not None and record.withdrawn_at is not None:
        raise Conflict(
            f"deployment {deployment!r} was withdrawn and serves nothing",
            remedy="`noria deploy` puts it back; `noria deploy list` shows what is served.",
        )


def own_name(tx: Transaction, model: str) -> str:
    """The name a model is served under when nobody gives one: of its first deployment, else its own."""
    query = select(tables.deployments.c.deployment).where(tables.deployments.c.model == model)
    first = tx.execute(query.order_by(tables.deployments.c.created_at).limit(1)).scalar()
    return model if first is None else str(first)


def serves_production(tx: Transaction, deployment: str, model: str) -> bool:
    """Whether what a deployment serves is the version in Production: the model's own, or one that follows Production.

    One of another name beside it has versions of its own.
    """
    record = find_deployment(tx, deployment)
    return own_name(tx, model) == deployment or (record is not None and record.follows == Stage.PRODUCTION)


def all_deployments(tx: Transaction) -> list[Deployment]:
    """All deployments by name, those withdrawn too."""
    query = select(tables.deployments).order_by(tables.deployments.c.deployment)
    return [_deployment(row) for row in tx.execute(query)]


# keys


def add_key(tx: Transaction, deployment: str, name: str, *, at: datetime, actor: str) -> tuple[GatewayKey, str]:
    """A new key for a deployment, and the key itself, which is shown this once. Raises NotFound.

    It has 256 random bits, so a plain SHA-256 keeps it: there is nothing to guess that slow hashing would slow.
    """
    get_deployment(tx, deployment)
    secret, key_id = _KEY_PREFIX + secrets.token_urlsafe(32), new_id()
    row = {"key_id": key_id, "deployment": deployment, "name": name, "created_by": actor}
    tx.execute(insert(tables.gateway_keys).values(**row, key_hash=key_hash(secret), created_at=to_millis(at)))
    _audit_key(tx, "add", deployment, key_id, name, at=at, actor=actor)
    return next(key for key in list_keys(tx, deployment) if key.key_id == key_id), secret


def revoke_key(tx: Transaction, key_id: str, *, at: datetime, actor: str) -> None:
    """Take a key's right away; without any left, nobody is let in. Raises NotFound."""
    table = tables.gateway_keys
    row = tx.execute(select(table).where(table.c.key_id == key_id, table.c.revoked_at.is_(None))).first()
    if row is None:
        raise NotFound(f"there is no key {key_id!r} to revoke", remedy="`noria deploy keys list` shows all.")
    tx.execute(update(table).where(table.c.key_id == key_id).values(revoked_at=to_millis(at)))
    _audit_key(tx, "revoke", row.deployment, key_id, row.name, at=at, actor=actor)


def drop_keys(tx: Transaction, deployment: str, *, at: datetime, actor: str) -> int:
    """Forget all keys of a deployment, so that it lets everyone in again; how many there were. Raises NotFound."""
    get_deployment(tx, deployment)
    table = tables.gateway_keys
    dropped = list(tx.execute(select(table.c.key_id).where(table.c.deployment == deployment)).scalars())
    tx.execute(delete(table).where(table.c.key_id.in_(dropped)))
    if dropped:
        gone = [(table, (key_id,)) for key_id in dropped]
        note(tx, deployment, "deployment.drop_keys", {"keys": len(dropped)}, gone, at=at, actor=actor)
    return len(dropped)


def list_keys(tx: Transaction, deployment: str | None = None) -> list[GatewayKey]:
    """The keys of one deployment or of all, oldest first, revoked ones too."""
    query = select(tables.gateway_keys).order_by(tables.gateway_keys.c.created_at)
    if deployment is not None:
        query = query.where(tables.gateway_keys.c.deployment == deployment)
    return [
        GatewayKey(
            row.key_id,
            row.deployment,
            row.name,
            from_millis(row.created_at),
            row.created_by,
            None if row.revoked_at is None else from_millis(row.revoked_at),
        )
        for row in tx.execute(query)
    ]


def key_hash(secret: str) -> str:
    """What is kept of a key, and what gateways compare."""
    return hashlib.sha256(secret.encode()).hexdigest()


# what gateways read


def tell_gateways(workspace: Workspace, deployment: str) -> None:
    """``write_routes`` after a change, which stands whether the file can be written or not.

    A full disk is told, and is no error: whoever asked again would roll back twice, or never see the key that was made.
    """
    try:
        write_routes(workspace, deployment)
    except (NoriaError, OSError) as error:
        _log.warning(
            "routes_not_written",
            deployment=deployment,
            reason=str(error),
            remedy="The change is kept; gateways go by the routes of before until they can write the file themselves.",
        )


def write_routes(workspace: Workspace, deployment: str) -> int:
    """Put a deployment's routes where gateways read them; returns their revision, 0 when it is not served.

    Whoever was overtaken between reading and writing has put older routes over newer ones: it reads once more.
    """
    path, table = workspace.route_file(deployment), _published(workspace, deployment)
    while True:
        if table is None:
            unpublish(path, is_withdrawn=_is_withdrawn(workspace, deployment))
        else:
            publish(table, path)
        written, table = table, _published(workspace, deployment)
        if table == written:
            return 0 if table is None else table.revision


def _is_withdrawn(workspace: Workspace, deployment: str) -> bool:
    with workspace.database.read() as tx:
        record = find_deployment(tx, deployment)
    return record is not None and record.withdrawn_at is not None


def _published(workspace: Workspace, deployment: str) -> RouteTable | None:
    with workspace.database.read() as tx:
        return published_routes(tx, deployment)


def write_all_routes(workspace: Workspace) -> Mapping[str, int]:
    """The same for all deployments; name → revision of those that are served.

    What cannot be read of one, such as a row that a newer program wrote, keeps no other waiting: it is told in the end,
    by CorruptArtifact.
    """
    discard_stale(workspace.route_folder)
    with workspace.database.read() as tx:
        names = [row.deployment for row in tx.execute(select(tables.route_tables.c.deployment).distinct())]
    revisions, faults = {}, []
    for name in sorted(names):
        try:
            revisions[name] = write_routes(workspace, name)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            faults.append(f"{name}: {type(error).__name__}: {error}")
    if faults:
        raise CorruptArtifact(
            f"the routes of {len(faults)} of {len(names)} deployments cannot be read; they are served as before",
            details=faults,
            remedy="Where a newer Noria wrote them, run that here, too; else deploy these again.",
        )
    return {name: revision for name, revision in revisions.items() if revision}


def published_routes(tx: Transaction, deployment: str) -> RouteTable | None:
    """The newest routes with all that gateways need: a bandit's shares of now, addresses, hashes of keys."""
    table, record = current_routes(tx, deployment), find_deployment(tx, deployment)
    if table is None or (record is not None and record.withdrawn_at is not None):
        return None
    table = _with_shares(tx, table)
    keys = tx.execute(select(tables.gateway_keys).where(tables.gateway_keys.c.deployment == deployment)).all()
    hashes = sorted(key.key_hash for key in keys if key.revoked_at is None)
    if keys and not hashes:
        hashes = [_NO_KEY]
    return replace(table, addresses=addresses_of(tx, table.variants[0].model), key_hashes=tuple(hashes))


def routes_now(tx: Transaction, deployment: str) -> RouteTable | None:
    """The newest routes with a bandit's shares of now, for people: without what only gateways need."""
    table = current_routes(tx, deployment)
    return None if table is None else replace(_with_shares(tx, table), contextual={})


def addresses_of(tx: Transaction, model: str) -> Mapping[str, int]:
    """The aliases and stages that a client may name, with the versions they mean now."""
    addresses = dict(aliases(tx, model))
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        if (version := version_in_stage(tx, model, stage)) is not None:
            addresses[stage.value] = version.version
    return dict(sorted(addresses.items()))


def _with_shares(tx: Transaction, table: RouteTable) -> RouteTable:
    """The table with the shares that a bandit gives its arms now."""
    rollout = open_rollout(tx, table.deployment)
    if rollout is None or rollout.plan.strategy is not Strategy.BANDIT:
        return table
    found = latest_shares(tx, rollout.rollout_id)
    if found is None:
        return table
    shares, parameters = found
    percents = _percents([shares.get(variant.name, 0.0) for variant in table.variants])
    variants = [replace(variant, percent=percent) for variant, percent in zip(table.variants, percents, strict=True)]
    contextual = from_json(parameters) if parameters else {}
    return replace(table, variants=tuple(variants), contextual=contextual)


def _percents(shares: Sequence[float]) -> list[float]:
    """Shares as percents that sum to 100, to the last digit."""
    rest = [round(100 * share, 6) for share in shares[1:]]
    return [round(100 - sum(rest), 6), *rest]


def _deployment(row: Row[tuple[object, ...]]) -> Deployment:
    return Deployment(
        row.deployment,
        row.model,
        row.follows,
        row.unit,
        from_millis(row.created_at),
        row.created_by,
        None if row.withdrawn_at is None else from_millis(row.withdrawn_at),
    )


def _row(deployment: str) -> Sequence[audit.RowKey]:
    return [(tables.deployments, (deployment,))]


def _audit_key(
    tx: Transaction, what: str, deployment: str, key_id: str, name: str, *, at: datetime, actor: str
) -> None:
    detail, changed = {"key_id": key_id, "name": name}, [(tables.gateway_keys, (key_id,))]
    note(tx, deployment, f"gateway_key.{what}", detail, changed, at=at, actor=actor)
