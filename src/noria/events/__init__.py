"""Events of the registry and the webhooks that are told of them, through a transactional outbox."""

from noria.events.entities import MLFLOW_EVENTS, OWN_EVENTS, Delivery, Webhook
from noria.events.outbox import PROMPT_TAG, emit, emit_tags, is_prompt, plain_tags

__all__ = [
    "MLFLOW_EVENTS",
    "OWN_EVENTS",
    "PROMPT_TAG",
    "Delivery",
    "Webhook",
    "emit",
    "emit_tags",
    "is_prompt",
    "plain_tags",
]
