"""The outbox: what is to be told is written with the change itself, and struck off once it was told.

A row is pending until it is delivered or has failed. Per webhook only the oldest pending row may be sent, so that the
order of the changes is the order of arrival; a sender claims it for a while, so that no two send it at once, and a
sender that died loses it when the claim runs out.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, Select, and_, func, insert, select, update
from sqlalchemy import delete as sql_delete

from noria.clock import from_millis, iso, to_millis
from noria.events.entities import Delivery, DeliveryStatus, Letter, WebhookStatus
from noria.ids import new_id
from noria.store.database import Transaction, to_json
from noria.store.tables import webhook_deliveries, webhooks

KEPT = timedelta(days=30)
"""How long a settled delivery stays on record."""

PROMPT_TAG, _PROMPT_TYPE = "mlflow.prompt.is_prompt", "_mlflow_prompt_type"
_deliveries = webhook_deliveries.c


def emit(tx: Transaction, event: str, data: Mapping[str, object], *, at: datetime) -> None:
    """Tell every active webhook that asked for ``event``, once the transaction commits and not before."""
    asking = select(webhooks.c.webhook_id, webhooks.c.events).where(webhooks.c.status == WebhookStatus.ACTIVE)
    told = [webhook_id for webhook_id, events in tx.execute(asking) if f'"{event}"' in events]
    if not told:
        return
    body, moment = envelope(event, data, at), to_millis(at)
    row = {"event": event, "body": body, "status": DeliveryStatus.PENDING, "attempts": 0}
    for webhook_id in told:
        tx.execute(
            insert(webhook_deliveries).values(
                delivery_id=str(uuid.uuid4()), webhook_id=webhook_id, due_at=moment, created_at=moment, **row
            )
        )


def emit_tags(
    tx: Transaction,
    entity: str,
    of: Mapping[str, object],
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    at: datetime,
) -> None:
    """``entity``.set for each tag that came or changed, ``entity``.deleted for each that went."""
    for key, value in after.items():
        if before.get(key) != value:
            emit(tx, f"{entity}.set", {**of, "key": key, "value": value}, at=at)
    for key in before.keys() - after.keys():
        emit(tx, f"{entity}.deleted", {**of, "key": key}, at=at)


def is_prompt(tags: Mapping[str, str]) -> bool:
    """Whether the tags are those of a prompt, which MLflow keeps among the models and tells of by other names."""
    return tags.get(PROMPT_TAG, "").lower() == "true"


def plain_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags without those by which MLflow marks a prompt."""
    return {key: value for key, value in tags.items() if key not in (PROMPT_TAG, _PROMPT_TYPE)}


def envelope(event: str, data: Mapping[str, object], at: datetime) -> str:
    """The body that is sent, as MLflow writes it."""
    entity, _, action = event.partition(".")
    return to_json({"entity": entity, "action": action, "timestamp": iso(at), "data": dict(data)})


def has_webhooks(tx: Transaction) -> bool:
    """Whether there is anything to send for."""
    return tx.execute(select(webhooks.c.webhook_id).limit(1)).first() is not None


def is_due(tx: Transaction, at: datetime) -> bool:
    """Whether a row may be claimed now."""
    return tx.execute(_due(to_millis(at)).limit(1)).first() is not None


def claim(tx: Transaction, *, at: datetime, until: datetime, limit: int) -> list[tuple[str, Letter]]:
    """Claim at most ``limit`` rows, one a webhook, until then: (claim, letter) of each."""
    found = tx.execute(_due(to_millis(at)).limit(limit)).all()
    claimed = []
    for row in found:
        token = new_id()
        tx.execute(
            update(webhook_deliveries)
            .where(_deliveries.sequence == row.sequence)
            .values(claimed_by=token, claimed_until=to_millis(until), attempts=_deliveries.attempts + 1)
        )
        claimed.append((token, Letter(row.delivery_id, row.url, row.secret, row.body)))
    return claimed


def settle(tx: Transaction, token: str, status: DeliveryStatus, *, at: datetime, reason: str = "") -> None:
    """Record how a claimed delivery ended. Nothing, when the claim ran out and another sender has it."""
    _release(tx, token, {"status": status, "settled_at": to_millis(at), "reason": reason})


def postpone(tx: Transaction, token: str, *, due: datetime, reason: str) -> None:
    """Give a claimed delivery back, to be tried again at ``due``."""
    _release(tx, token, {"due_at": to_millis(due), "reason": reason})


def attempts_of(tx: Transaction, token: str) -> int:
    """How often the claimed delivery was tried, this time included; 0 when the claim ran out."""
    return tx.execute(select(_deliveries.attempts).where(_deliveries.claimed_by == token)).scalar() or 0


def forget(tx: Transaction, *, before: datetime) -> None:
    """Remove what was settled before that time."""
    tx.execute(sql_delete(webhook_deliveries).where(_deliveries.settled_at < to_millis(before)))


def list_deliveries(tx: Transaction, webhook_id: str | None = None, *, limit: int = 100) -> list[Delivery]:
    """The latest deliveries, of one webhook or of all, newest first."""
    query = _recorded().order_by(_deliveries.sequence.desc())
    if webhook_id is not None:
        query = query.where(_deliveries.webhook_id == webhook_id)
    return [_delivery(row) for row in tx.execute(query.limit(limit))]


def find_delivery(tx: Transaction, delivery_id: str) -> Delivery | None:
    """The delivery of that id, or None."""
    row = tx.execute(_recorded().where(_deliveries.delivery_id == delivery_id)).first()
    return None if row is None else _delivery(row)


def _recorded() -> Select[tuple[object, ...]]:
    return select(webhook_deliveries, webhooks.c.name).join(webhooks)


def _due(now: int) -> Select[tuple[object, ...]]:
    """The oldest pending row of each active webhook that is due and nobody's, oldest first."""
    pending: ColumnElement[bool] = _deliveries.status == DeliveryStatus.PENDING
    heads = select(func.min(_deliveries.sequence)).where(pending).group_by(_deliveries.webhook_id)
    free = and_(_deliveries.due_at <= now, _deliveries.claimed_until <= now)
    return (
        select(_deliveries.sequence, _deliveries.delivery_id, _deliveries.body, webhooks.c.url, webhooks.c.secret)
        .join(webhooks, webhooks.c.webhook_id == _deliveries.webhook_id)
        .where(_deliveries.sequence.in_(heads), free, webhooks.c.status == WebhookStatus.ACTIVE)
        .order_by(_deliveries.sequence)
    )


def _release(tx: Transaction, token: str, values: Mapping[str, object]) -> None:
    mine = update(webhook_deliveries).where(_deliveries.claimed_by == token)
    tx.execute(mine.values(claimed_by="", claimed_until=0, **values))


def _delivery(row: Row[tuple[object, ...]]) -> Delivery:
    return Delivery(
        delivery_id=row.delivery_id,
        webhook_id=row.webhook_id,
        webhook=row.name,
        event=row.event,
        status=DeliveryStatus(row.status),
        attempts=row.attempts,
        created_at=from_millis(row.created_at),
        due_at=from_millis(row.due_at),
        settled_at=None if row.settled_at is None else from_millis(row.settled_at),
        reason=row.reason,
    )
