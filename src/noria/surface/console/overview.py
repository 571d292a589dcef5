"""What the overview page shows, gathered from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noria import audit
from noria.access import Identity, Permission
from noria.audit import AuditEntry
from noria.audit.watch import ChainWatch, Watched
from noria.errors import BrokenChain
from noria.monitoring.records import Verdict, list_verdicts, list_windows
from noria.registry import ModelVersion, Stage, list_versions
from noria.rollout import RouteTable
from noria.rollout.deployments import published_routes
from noria.rollout.records import (
    Rollout,
    RolloutDecision,
    list_decisions,
    list_deployments,
    list_rollouts,
    percent_now,
)
from noria.store.database import Database
from noria.surface.console.chart import Chart, draw

_AUDIT_ENTRIES = 20
_LOGGING = ("run", "artifact", "logged_model", "trace", "tracking")
"""What clients write by the minute, which would leave no room for what people decide."""

_VERDICTS = 8


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment: its traffic now, its verdicts and rollouts, and whether who looks may change it.

    Beside a rollout and its decisions stands the challengers' percent of now.
    """

    name: str
    routes: RouteTable
    chart: Chart | None
    verdicts: Sequence[Verdict]
    rollouts: Sequence[tuple[Rollout, Sequence[RolloutDecision], float]]
    may_change: bool

    @property
    def under_way(self) -> str:
        """The id of the rollout under way, empty without one."""
        return next((rollout.rollout_id for rollout, _, _ in self.rollouts if rollout.is_open), "")


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page needs. ``chain`` is None when ``fault`` says what broke it."""

    versions: Sequence[ModelVersion]
    deployments: Sequence[Deployment]
    entries: Sequence[AuditEntry]
    chain: Watched | None
    fault: str


def gather(database: Database, watch: ChainWatch, identity: Identity) -> Overview:
    """Look at the audit chain, then read everything in one snapshot; ``identity`` is who looks."""
    chain, fault = None, ""
    try:
        chain = watch.look()
    except BrokenChain as broken:
        fault = str(broken)
    with database.read() as tx:
        deployments = []
        for name in list_deployments(tx):
            routes = published_routes(tx, name)
            if routes is None:  # withdrawn
                continue
            verdicts = list_verdicts(tx, name)
            rollouts = [
                (one, list_decisions(tx, one.rollout_id), percent_now(tx, one))
                for one in reversed(list_rollouts(tx, name))
            ]
            chart = draw(list_windows(tx, name), verdicts)
            may_change = identity.may(Permission.MAINTAIN, routes.variants[0].model)
            deployments.append(Deployment(name, routes, chart, verdicts[::-1][:_VERDICTS], rollouts, may_change))
        return Overview(
            versions=_in_order(list_versions(tx)),
            deployments=deployments,
            entries=audit.entries(tx, limit=_AUDIT_ENTRIES, without=_LOGGING),
            chain=chain,
            fault=fault,
        )


def _in_order(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """Those in Production, then all others, the newest first."""
    newest = sorted(versions, key=lambda one: (one.created_at, one.version), reverse=True)
    return sorted(newest, key=lambda one: one.stage is not Stage.PRODUCTION)
