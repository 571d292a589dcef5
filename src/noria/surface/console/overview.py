"""What the overview page shows, gathered from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noria import audit
from noria.audit import AuditEntry
from noria.errors import BrokenChain
from noria.monitoring.records import Verdict, list_verdicts, list_windows
from noria.registry import ModelVersion, list_versions
from noria.rollout import RouteTable, current_routes
from noria.rollout.records import Rollout, RolloutDecision, list_decisions, list_deployments, list_rollouts
from noria.store.database import Database
from noria.surface.console.chart import Chart, draw

_AUDIT_ENTRIES = 20
_VERDICTS = 8


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment: its traffic now, its verdicts and rollouts."""

    name: str
    routes: RouteTable
    chart: Chart | None
    verdicts: Sequence[Verdict]
    rollouts: Sequence[tuple[Rollout, Sequence[RolloutDecision]]]


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page needs. ``fault`` is what broke the audit chain, empty when it verifies."""

    versions: Sequence[ModelVersion]
    deployments: Sequence[Deployment]
    entries: Sequence[AuditEntry]
    verified: int
    fault: str


def gather(database: Database) -> Overview:
    """Read everything in one snapshot."""
    with database.read() as tx:
        try:
            verified, fault = audit.verify(tx).entries, ""
        except BrokenChain as broken:
            verified, fault = 0, str(broken)
        deployments = []
        for name in list_deployments(tx):
            routes = current_routes(tx, name)
            assert routes is not None
            verdicts = list_verdicts(tx, name)
            rollouts = [(r, list_decisions(tx, r.rollout_id)) for r in reversed(list_rollouts(tx, name))]
            chart = draw(list_windows(tx, name), verdicts)
            deployments.append(Deployment(name, routes, chart, verdicts[::-1][:_VERDICTS], rollouts))
        return Overview(
            versions=list_versions(tx)[::-1],
            deployments=deployments,
            entries=audit.entries(tx, limit=_AUDIT_ENTRIES),
            verified=verified,
            fault=fault,
        )
