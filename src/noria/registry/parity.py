"""What was measured of a version's feature parity: a policy asks for it as the metric ``feature_parity``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import insert, select

from noria import audit
from noria.clock import to_millis
from noria.ids import new_id
from noria.store.database import Transaction, to_json
from noria.store.tables import parity_checks

FEATURE_PARITY = "feature_parity"


def record_parity(
    tx: Transaction,
    model: str,
    version: int,
    *,
    predictions: int,
    values: int,
    equal: int,
    reasons: Mapping[str, int],
    at: datetime,
    actor: str,
) -> None:
    """Keep one measurement, with its audit entry."""
    check_id = new_id()
    found = {"predictions": predictions, "values": values, "equal": equal}
    tx.execute(
        insert(parity_checks).values(
            check_id=check_id,
            model=model,
            version=version,
            **found,
            reasons=to_json(dict(reasons)),
            checked_at=to_millis(at),
        )
    )
    audit.append(
        tx,
        at=at,
        actor=actor,
        action="version.parity",
        subject=f"version:{model}@{version}",
        detail={**found, "reasons": dict(reasons)},
        changed=[(parity_checks, (check_id,))],
    )


def latest_parity(tx: Transaction, model: str, version: int) -> float | None:
    """The share of equal values when it was last measured; None when it never was."""
    table = parity_checks.c
    newest = select(table["values"], table.equal).where(table.model == model, table.version == version)
    row = tx.execute(newest.order_by(table.checked_at.desc(), table.check_id).limit(1)).first()
    if row is None:
        return None
    values, equal = row
    return float(equal / values) if values else 1.0
