"""The summary of a journey: what happened, when in data time, and why, read back from the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from noria import audit
from noria.clock import iso
from noria.monitoring.records import list_verdicts
from noria.pipelines import Project
from noria.registry import ModelVersion, list_versions
from noria.rollout.records import ROLLED_BACK, list_decisions, list_rollouts
from noria.store.database import Transaction

_SHOWN = ("auc", "accuracy", "brier", "calibration_error", "gain", "mae", "rmse", "r2")


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
        "audit": dict(journal.get("audit", {})),
        "seconds": dict(seconds),
    }


def timeline(tx: Transaction) -> list[Event]:
    """The audit trail as people read it, oldest first."""
    return [
        Event(entry.recorded_at, f"{entry.action} {entry.subject}", _why(entry.detail))
        for entry in audit.entries(tx, limit=1_000_000, newest_first=False)
    ]


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
        moved = evidence.get("moved_most") if isinstance(evidence, Mapping) else None
        text = f"{detail['detector']}: {float(str(detail['statistic'])):.0f} ≥ {float(str(detail['threshold'])):.0f}"
        return text + (f" ({', '.join(map(str, moved))})" if isinstance(moved, list) else "")
    if "unmet" in detail:
        return "; ".join(map(str, detail["unmet"])) if isinstance(detail["unmet"], list) else ""
    return str(detail.get("reason", ""))
