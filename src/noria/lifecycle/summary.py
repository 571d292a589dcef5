"""The summary of a journey: what happened, when in data time, and why, read back from the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from noria import audit
from noria.audit import AuditEntry
from noria.clock import iso
from noria.monitoring.records import list_verdicts
from noria.pipelines import Project
from noria.registry import ModelVersion, list_versions
from noria.rollout.records import ROLLED_BACK, list_decisions, list_rollouts
from noria.store.database import Transaction

_SHOWN = ("auc", "accuracy", "brier", "calibration_error", "gain", "mae", "rmse", "r2")


_PHRASES: Mapping[str, Callable[[AuditEntry], str]] = {
    "version.register": lambda entry: f"{_name(entry)} registered",
    "version.approve": lambda entry: f"{_name(entry)} approved for {entry.detail['stage']}",
    "version.refuse": lambda entry: f"{_name(entry)} refused {entry.detail['to_stage']}",
    "version.transition": lambda entry: f"{_name(entry)}: {entry.detail['from_stage']} → {entry.detail['to_stage']}",
    "verdict.raise": lambda entry: f"verdict: {entry.detail['detector']} on version {entry.detail['model_version']}",
    "rollout.start": lambda entry: f"{_strategy(entry)} of version {_challengers(entry)} starts",
    "rollout.advance": lambda entry: f"rollout at {entry.detail['percent']:g}% passes",
    "rollout.promote": lambda entry: f"rollout at {entry.detail['percent']:g}% promoted",
    "rollout.roll_back": lambda entry: f"rollout at {entry.detail['percent']:g}% rolled back",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the timeline."""

    at: datetime
    what: str
    why: str


def summarize(
    tx: Transaction, project: Project, journal: Mapping[str, Mapping[str, object]], seconds: Mapping[str, float]
) -> dict[str, object]:
    """The journey as one JSON object."""
    rollouts = list_rollouts(tx, project.deployment)
    steps = [
        {
            "version": rollout.challenger,
            "percent": decision.percent,
            "decision": decision.decision.value,
            "date": iso(decision.decided_at),
            "reason": decision.evidence.get("reason"),
        }
        for rollout in rollouts
        for decision in list_decisions(tx, rollout.rollout_id)
    ]
    back = [step for step in steps if step["decision"] == "roll_back"]
    traffic = [result for name, result in journal.items() if name.startswith("traffic:")]
    return {
        "project": project.settings.project.name,
        "data": dict(journal.get("data", {})),
        "versions": [_version(version) for version in list_versions(tx, project.settings.model.name)],
        "policy": dict(journal.get("registry", {})),
        "verdicts": [
            {
                "date": iso(verdict.window_start),
                "detector": verdict.detector,
                "statistic": verdict.statistic,
                "threshold": verdict.threshold,
                "model_version": verdict.model_version,
                "evidence": dict(verdict.evidence),
                "outcome": verdict.outcome,
            }
            for verdict in list_verdicts(tx, project.deployment)
        ],
        "canary": {
            "steps": steps,
            "outcomes": [{"version": r.challenger, "status": r.status} for r in rollouts],
        },
        "rollback": back[-1] if back and any(r.status == ROLLED_BACK for r in rollouts) else None,
        "requests": {
            "sent": sum(int(str(result["sent"])) for result in traffic),
            "failed": sum(int(str(result["failed"])) for result in traffic),
        },
        "timeline": [{"date": iso(event.at), "what": event.what, "why": event.why} for event in timeline(tx)],
        "audit": dict(journal.get("audit", {})),
        "seconds": dict(seconds),
    }


def timeline(tx: Transaction) -> list[Event]:
    """The audit trail as people read it, oldest first; what another line says already is left out."""
    return [
        Event(entry.recorded_at, _PHRASES[entry.action](entry), _why(entry.detail))
        for entry in audit.entries(tx, limit=1_000_000, newest_first=False)
        if entry.action in _PHRASES
    ]


def _moved(evidence: Mapping[str, object]) -> str:
    """What the last window showed, in words."""
    moved = evidence.get("moved_most")
    if isinstance(moved, list):
        return f"most moved are {', '.join(map(str, moved))}"
    return f"the last day lay {float(str(evidence['deviation'])):+.1f} standard deviations from the reference"


def _strategy(entry: AuditEntry) -> str:
    return str(entry.detail.get("strategy", "canary")).replace("_", "-")


def _challengers(entry: AuditEntry) -> str:
    several = entry.detail.get("challengers")
    return ", ".join(map(str, several)) if isinstance(several, list) else str(entry.detail.get("challenger"))


def _name(entry: AuditEntry) -> str:
    return entry.subject.partition(":")[2]


def _version(version: ModelVersion) -> dict[str, object]:
    return {
        "version": version.version,
        "semantic_version": version.semantic_version,
        "stage": version.stage.value,
        "trigger": version.tags.get("trigger"),
        "dataset_version": version.dataset_version_id,
        "digest": version.digest,
        "run_id": version.run_id,
        "metrics": {name: round(value, 4) for name, value in version.metrics.items() if name in _SHOWN},
    }


def _why(detail: Mapping[str, object]) -> str:
    evidence = detail.get("evidence")
    if isinstance(evidence, Mapping) and "reason" in evidence:
        return str(evidence["reason"])
    if "detector" in detail:
        text = f"evidence {float(str(detail['statistic'])):.0f} ≥ {float(str(detail['threshold'])):.0f}"
        return f"{text}: {_moved(evidence)}" if isinstance(evidence, Mapping) else text
    tags = detail.get("tags")
    if isinstance(tags, Mapping):
        return str(tags.get("trigger", ""))
    if "unmet" in detail:
        return "; ".join(map(str, detail["unmet"])) if isinstance(detail["unmet"], list) else ""
    return str(detail.get("reason", ""))
