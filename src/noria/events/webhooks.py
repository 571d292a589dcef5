"""Webhooks: who is told of what; every change is audited."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import Row, insert, select, update
from sqlalchemy import delete as sql_delete

from noria import audit
from noria.clock import from_millis, to_millis
from noria.errors import Conflict, InvalidInput, NotFound
from noria.events.entities import MLFLOW_EVENTS, OWN_EVENTS, Delivery, DeliveryStatus, Webhook, WebhookStatus
from noria.events.outbox import KEPT, find_delivery
from noria.store.database import Transaction, to_json
from noria.store.tables import webhook_deliveries, webhooks

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.IGNORECASE)
_LONGEST_URL = 2000
_SHOWN = ("name", "url", "description", "events", "status")


def create_webhook(
    tx: Transaction,
    *,
    name: str,
    url: str,
    events: Sequence[str],
    at: datetime,
    actor: str,
    description: str = "",
    secret: str = "",
    status: WebhookStatus = WebhookStatus.ACTIVE,
) -> Webhook:
    """A new webhook. Raises InvalidInput for a name, URL or event that is none."""
    _check(name, url, events)
    webhook_id, moment = str(uuid.uuid4()), to_millis(at)
    row = {"name": name, "url": url, "description": description, "events": _as_text(events), "status": status.value}
    times = {"created_at": moment, "updated_at": moment}
    tx.execute(insert(webhooks).values(webhook_id=webhook_id, secret=secret, **row, **times))
    made = get_webhook(tx, webhook_id)
    _record(tx, "webhook.create", made, {"after": _shown(made)}, at, actor)
    return made


def get_webhook(tx: Transaction, webhook_id: str) -> Webhook:
    """The webhook of that id. Raises NotFound."""
    row = tx.execute(select(webhooks).where(webhooks.c.webhook_id == webhook_id)).first()
    if row is None:
        raise NotFound(f"Webhook with ID {webhook_id} not found.", remedy="`noria webhooks list` shows their ids.")
    return _webhook(row)


def list_webhooks(tx: Transaction) -> list[Webhook]:
    """All webhooks, newest first."""
    return [_webhook(row) for row in tx.execute(select(webhooks).order_by(webhooks.c.created_at.desc()))]


def update_webhook(
    tx: Transaction,
    webhook_id: str,
    *,
    at: datetime,
    actor: str,
    name: str | None = None,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | None = None,
    secret: str | None = None,
    status: WebhookStatus | None = None,
) -> Webhook:
    """Change what is given. Events that wait for it go where it then points. Raises NotFound or InvalidInput."""
    before = get_webhook(tx, webhook_id)
    name, url, events = name or before.name, url or before.url, events or before.events
    _check(name, url, events)
    tx.execute(
        update(webhooks)
        .where(webhooks.c.webhook_id == webhook_id)
        .values(
            name=name,
            url=url,
            events=_as_text(events),
            description=before.description if description is None else description,
            secret=before.secret if secret is None else secret,
            status=(status or before.status).value,
            updated_at=to_millis(at),
        )
    )
    after = get_webhook(tx, webhook_id)
    detail = {"before": _shown(before), "after": _shown(after), "secret_changed": before.secret != after.secret}
    _record(tx, "webhook.update", after, detail, at, actor)
    return after


def delete_webhook(tx: Transaction, webhook_id: str, *, at: datetime, actor: str) -> None:
    """Remove a webhook and whatever still waits for it. Raises NotFound."""
    before = get_webhook(tx, webhook_id)
    tx.execute(sql_delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id))
    tx.execute(sql_delete(webhooks).where(webhooks.c.webhook_id == webhook_id))
    _record(tx, "webhook.delete", before, {"before": _shown(before)}, at, actor)


def resend(tx: Transaction, delivery_id: str, *, at: datetime, actor: str) -> Delivery:
    """Let a delivery that failed for good be sent again, under its own id, before whatever waits for its webhook.

    Raises NotFound, or Conflict for one that did not fail.
    """
    of_it = webhook_deliveries.c.delivery_id == delivery_id
    found = find_delivery(tx, delivery_id)
    if found is None:
        raise NotFound(
            f"delivery {delivery_id!r} is not on record",
            remedy=f"`noria webhooks deliveries` lists those of the last {KEPT.days} days.",
        )
    if found.status is not DeliveryStatus.FAILED:
        raise Conflict(f"delivery {delivery_id} is {found.status}, it has not failed", remedy="Leave it as it is.")
    again = {"status": DeliveryStatus.PENDING, "attempts": 0, "due_at": to_millis(at), "settled_at": None}
    tx.execute(update(webhook_deliveries).where(of_it).values(**again))
    detail = {"delivery_id": delivery_id, "event": found.event, "failed": found.reason}
    _record(tx, "webhook.resend", get_webhook(tx, found.webhook_id), detail, at, actor)
    return found


def _check(name: str, url: str, events: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"Webhook name {name[:80]!r} is invalid",
            remedy="Use 1 to 63 letters, digits, dots, underscores and hyphens; a letter or digit first and last.",
        )
    _check_url(url)
    known = {*MLFLOW_EVENTS, *OWN_EVENTS}
    if unknown := sorted(set(events) - known):
        raise InvalidInput(f"{', '.join(unknown)} is no event", remedy=f"Use some of {', '.join(sorted(known))}.")
    if not set(events) & set(MLFLOW_EVENTS):
        raise InvalidInput(
            "a webhook asks for at least one of MLflow's events, or MLflow's clients could not show it",
            remedy=f"Add one of {', '.join(MLFLOW_EVENTS)}.",
        )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(url) > _LONGEST_URL or not url.isascii() or re.search(r"[\s\x00-\x20\x7f]", url):
        raise InvalidInput(
            f"{url[:200]!r} is no URL of a webhook",
            remedy=f"Use http:// or https:// with a host, up to {_LONGEST_URL} ASCII signs.",
        )
    if parts.username is not None:
        raise InvalidInput("the URL holds a user name", remedy="Sign with a secret, and let the receiver verify it.")


def _record(
    tx: Transaction, action: str, webhook: Webhook, detail: Mapping[str, object], at: datetime, actor: str
) -> None:
    changed: list[audit.RowKey] = [(webhooks, (webhook.webhook_id,))]
    subject = f"webhook:{webhook.name}"
    detail = {"webhook_id": webhook.webhook_id, **detail}
    audit.append(tx, at=at, actor=actor, action=action, subject=subject, detail=detail, changed=changed)


def _shown(webhook: Webhook) -> dict[str, object]:
    """What the audit trail tells of a webhook: not its secret, and of its URL, which may be one, the host."""
    shown: dict[str, object] = {name: getattr(webhook, name) for name in _SHOWN}
    return shown | {"url": urlsplit(webhook.url).hostname, "signed": bool(webhook.secret)}


def _as_text(events: Sequence[str]) -> str:
    return to_json(list(dict.fromkeys(events)))


def _webhook(row: Row[tuple[object, ...]]) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        name=row.name,
        url=row.url,
        description=row.description,
        events=tuple(json.loads(row.events)),
        secret=row.secret,
        status=WebhookStatus(row.status),
        created_at=from_millis(row.created_at),
        updated_at=from_millis(row.updated_at),
    )
