"""What monitoring leaves behind: one row a window and detector, and a verdict when a detector fires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, delete, insert, select, update

from noria import audit
from noria.clock import from_millis, iso, to_millis
from noria.ids import derived_id
from noria.store.database import Transaction, from_json, to_json
from noria.store.tables import monitor_windows, verdicts


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What one detector made of one window. ``value`` is the window's own measure, ``statistic`` the accumulated
    evidence that is compared with ``threshold``."""

    deployment: str
    model_version: int
    detector: str
    window_start: datetime
    rows: int
    value: float
    statistic: float
    threshold: float
    evidence: Mapping[str, object]

    @property
    def fired(self) -> bool:
        """Whether the evidence reached the threshold."""
        return self.statistic >= self.threshold


@dataclass(frozen=True, slots=True)
class Verdict:
    """A detector's finding that the world moved, and what came of it."""

    verdict_id: str
    deployment: str
    model_version: int
    detector: str
    statistic: float
    threshold: float
    evidence: Mapping[str, object]
    window_start: datetime
    raised_at: datetime
    outcome: str


def save_window(tx: Transaction, result: WindowResult) -> None:
    """Store the result, replacing an earlier one of the same window."""
    table = monitor_windows
    tx.execute(
        delete(table).where(
            table.c.deployment == result.deployment,
            table.c.model_version == result.model_version,
            table.c.detector == result.detector,
            table.c.window_start == to_millis(result.window_start),
        )
    )
    tx.execute(
        insert(table).values(
            deployment=result.deployment,
            model_version=result.model_version,
            detector=result.detector,
            window_start=to_millis(result.window_start),
            rows=result.rows,
            value=result.value,
            statistic=result.statistic,
            threshold=result.threshold,
            evidence=to_json(dict(result.evidence)),
        )
    )


def last_window(
    tx: Transaction, deployment: str, model_version: int, detector: str, *, before: datetime
) -> WindowResult | None:
    """The detector's newest window that starts before ``before``, or None."""
    table = monitor_windows
    query = select(table).where(
        table.c.deployment == deployment,
        table.c.model_version == model_version,
        table.c.detector == detector,
        table.c.window_start < to_millis(before),
    )
    row = tx.execute(query.order_by(table.c.window_start.desc()).limit(1)).first()
    return None if row is None else _window(row)


def list_windows(tx: Transaction, deployment: str) -> list[WindowResult]:
    """All windows of a deployment in order of time."""
    table = monitor_windows
    query = select(table).where(table.c.deployment == deployment).order_by(table.c.window_start, table.c.detector)
    return [_window(row) for row in tx.execute(query)]


def raise_verdict(tx: Transaction, result: WindowResult, *, at: datetime, actor: str, outcome: str) -> Verdict:
    """Record that ``result`` fired and what is done about it; the same window's verdict is recorded once."""
    verdict_id = derived_id(result.deployment, str(result.model_version), result.detector, iso(result.window_start))
    known = tx.execute(select(verdicts).where(verdicts.c.verdict_id == verdict_id)).first()
    if known is not None:
        return _verdict(known)
    detail: dict[str, object] = {
        "detector": result.detector,
        "statistic": result.statistic,
        "threshold": result.threshold,
        "evidence": dict(result.evidence),
        "model_version": result.model_version,
        "outcome": outcome,
    }
    tx.execute(
        insert(verdicts).values(
            verdict_id=verdict_id,
            deployment=result.deployment,
            model_version=result.model_version,
            detector=result.detector,
            statistic=result.statistic,
            threshold=result.threshold,
            evidence=to_json(dict(result.evidence)),
            window_start=to_millis(result.window_start),
            raised_at=to_millis(at),
            outcome=outcome,
        )
    )
    subject = f"deployment:{result.deployment}"
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="verdict.raise",
        subject=subject,
        detail=detail,
        changed=[(verdicts, (verdict_id,))],
    )
    return get_verdict(tx, verdict_id)


def set_outcome(tx: Transaction, verdict: Verdict, outcome: str, *, at: datetime, actor: str) -> None:
    """Say what came of a verdict."""
    tx.execute(update(verdicts).where(verdicts.c.verdict_id == verdict.verdict_id).values(outcome=outcome))
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="verdict.answer",
        subject=f"deployment:{verdict.deployment}",
        detail={"before": verdict.outcome, "after": outcome, "reason": outcome},
        changed=[(verdicts, (verdict.verdict_id,))],
    )


def get_verdict(tx: Transaction, verdict_id: str) -> Verdict:
    """The verdict of that id, which must exist."""
    return _verdict(tx.execute(select(verdicts).where(verdicts.c.verdict_id == verdict_id)).one())


def list_verdicts(tx: Transaction, deployment: str | None = None) -> list[Verdict]:
    """The verdicts of a deployment, or of all, oldest first."""
    query = select(verdicts).order_by(verdicts.c.raised_at)
    if deployment is not None:
        query = query.where(verdicts.c.deployment == deployment)
    return [_verdict(row) for row in tx.execute(query)]


def _window(row: Row[tuple[object, ...]]) -> WindowResult:
    return WindowResult(
        row.deployment,
        row.model_version,
        row.detector,
        from_millis(row.window_start),
        row.rows,
        row.value,
        row.statistic,
        row.threshold,
        from_json(row.evidence),
    )


def _verdict(row: Row[tuple[object, ...]]) -> Verdict:
    return Verdict(
        row.verdict_id,
        row.deployment,
        row.model_version,
        row.detector,
        row.statistic,
        row.threshold,
        from_json(row.evidence),
        from_millis(row.window_start),
        from_millis(row.raised_at),
        row.outcome,
    )
