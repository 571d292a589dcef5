"""What a webhook and a delivery are, and which events there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MLFLOW_EVENTS: Sequence[str] = (
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
    "budget_policy.exceeded",
)
"""MLflow's events. The last may be asked for, as at MLflow, and never happens: Noria has no budget policies."""

OWN_EVENTS: Sequence[str] = (
    "model_version.stage_transitioned",
    "model_version.approved",
    "model_version.transition_refused",
)
"""Noria's own, which MLflow's clients do not know."""


class WebhookStatus(StrEnum):
    """Whether a webhook is told of what happens."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of which events. ``secret`` signs, and is never shown; empty: nothing is signed."""

    webhook_id: str
    name: str
    url: str
    description: str
    events: tuple[str, ...]
    secret: str
    status: WebhookStatus
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. ``reason`` says why the last attempt failed."""

    delivery_id: str
    webhook_id: str
    webhook: str
    event: str
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    due_at: datetime
    settled_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent: a body, where to, and the secret to sign it with."""

    delivery_id: str
    url: str
    secret: str
    body: str
