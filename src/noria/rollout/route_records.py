"""Route tables in the database: every revision of each deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Row, insert, select

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import InvalidInput
from noria.registry.stages import in_line
from noria.rollout.routes import RouteTable, Variant, variant_document
from noria.store.database import Transaction, to_json
from noria.store.tables import route_tables

WENT_BACK = "rolled back:"
"""How the reason of routes begins that gave the version before all the traffic again."""


def set_routes(
    tx: Transaction,
    deployment: str,
    variants: Sequence[Variant],
    *,
    at: datetime,
    actor: str,
    reason: str,
    salt: str = "",
    unit: str = "",
) -> RouteTable:
    """Record the next revision; the same routes again change nothing. The champion stands first."""
    _check(deployment, variants)
    before = current_routes(tx, deployment)
    if before is not None and (tuple(before.variants), before.salt, before.unit) == (tuple(variants), salt, unit):
        return before
    revision = 1 if before is None else before.revision + 1
    tx.execute(
        insert(route_tables).values(
            deployment=deployment,
            revision=revision,
            variants=to_json([variant_document(variant) for variant in variants]),
            reason=reason,
            actor=actor,
            created_at=to_millis(at),
            salt=salt,
            unit=unit,
        )
    )
    detail = {
        "revision": revision,
        "before": [] if before is None else _shares(before.variants),
        "after": _shares(variants),
        "reason": reason,
    }
    note(tx, deployment, "route.set", detail, [(route_tables, (deployment, revision))], at=at, actor=actor)
    return RouteTable(deployment, revision, tuple(variants), reason, at, salt, unit)


def note(
    tx: Transaction,
    deployment: str,
    action: str,
    detail: Mapping[str, object],
    changed: Sequence[audit.RowKey],
    *,
    at: datetime,
    actor: str,
) -> None:
    """The audit entry of a change to a deployment: its routes, its keys, its rollouts."""
    subject = f"deployment:{deployment}"
    audit.append(tx, at=at, actor=actor, action=action, subject=subject, detail=detail, changed=changed)


def current_routes(tx: Transaction, deployment: str) -> RouteTable | None:
    """The newest route table of a deployment, or None."""
    query = select(route_tables).where(route_tables.c.deployment == deployment)
    row = tx.execute(query.order_by(route_tables.c.revision.desc()).limit(1)).first()
    return None if row is None else _table(row)


def champion_at(tx: Transaction, deployment: str, at: datetime) -> Variant | None:
    """Who stood first in a deployment's routes at that instant, or None."""
    mine = (route_tables.c.deployment == deployment) & (route_tables.c.created_at <= to_millis(at))
    row = tx.execute(select(route_tables).where(mine).order_by(route_tables.c.revision.desc()).limit(1)).first()
    return None if row is None else _table(row).variants[0]


def route_revision(tx: Transaction, deployment: str, revision: int) -> RouteTable | None:
    """The route table a deployment had at ``revision``."""
    query = select(route_tables).where(route_tables.c.deployment == deployment, route_tables.c.revision == revision)
    row = tx.execute(query).first()
    return None if row is None else _table(row)


def routes_with(tx: Transaction, model: str, version: int) -> list[RouteTable]:
    """Every route table that gave a version traffic, by deployment and revision."""
    query = select(route_tables).order_by(route_tables.c.deployment, route_tables.c.revision)
    tables = (_table(row) for row in tx.execute(query))
    return [table for table in tables if any((v.model, v.version) == (model, version) for v in table.variants)]


def earlier_champion(tx: Transaction, deployment: str) -> Variant | None:
    """The champion to go back to: the one before the present one; those that were gone back from are passed over."""
    query = select(route_tables).where(route_tables.c.deployment == deployment).order_by(route_tables.c.revision)
    routes = [_table(row) for row in tx.execute(query)]
    champions = {(one.variants[0].model, one.variants[0].version): one.variants[0] for one in routes}
    line = in_line(
        ((one.variants[0].model, one.variants[0].version), one.reason.startswith(WENT_BACK)) for one in routes
    )
    return champions[line[-2]] if len(line) > 1 else None


def _check(deployment: str, variants: Sequence[Variant]) -> None:
    total = sum(variant.percent for variant in variants if not variant.shadow)
    if not variants or abs(total - 100) > 1e-9 or any(variant.percent < 0 for variant in variants):
        raise InvalidInput(
            f"the shares of deployment {deployment!r} sum to {total:g}, not 100",
            remedy="Give every variant a share of 0 to 100 percent that together make 100.",
        )


def _shares(variants: Sequence[Variant]) -> list[dict[str, object]]:
    return [{"name": v.name, "version": f"{v.model}@{v.version}", "percent": v.percent} for v in variants]


def _table(row: Row[tuple[object, ...]]) -> RouteTable:
    variants = tuple(Variant(**variant) for variant in json.loads(row.variants))
    at = from_millis(row.created_at)
    return RouteTable(row.deployment, row.revision, variants, row.reason, at, row.salt, row.unit)
