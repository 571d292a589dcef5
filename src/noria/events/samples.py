"""Examples of every event's data, for trying a webhook out."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from noria.errors import InvalidInput
from noria.events.entities import Letter, Webhook
from noria.events.outbox import envelope

_TAGS = {"example_key": "example_value"}
_TAG = {"key": "example_key", "value": "example_value"}
_MODEL: Mapping[str, object] = {"name": "example_model"}
_VERSION: Mapping[str, object] = {**_MODEL, "version": "1"}
_PROMPT: Mapping[str, object] = {"name": "example_prompt"}
_PROMPT_VERSION: Mapping[str, object] = {**_PROMPT, "version": "1"}
_ALIAS = {"alias": "example_alias"}
_MOVED = {"from_stage": "None", "to_stage": "Staging", "actor": "someone", "reason": "an example"}
_REFUSED = {"to_stage": "Production", "actor": "someone", "reason": "", "unmet": ["tag 'reviewed' is missing"]}
_APPROVED = {"stage": "Production", "actor": "someone", "roles": ["approver"], "reason": "an example"}

SAMPLES: Mapping[str, Mapping[str, object]] = {
    "registered_model.created": {**_MODEL, "tags": _TAGS, "description": "An example registered model"},
    "model_version.created": {
        **_VERSION,
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        "tags": _TAGS,
        "description": "An example model version",
    },
    "model_version_tag.set": {**_VERSION, **_TAG},
    "model_version_tag.deleted": {**_VERSION, "key": "example_key"},
    "model_version_alias.created": {**_VERSION, **_ALIAS},
    "model_version_alias.deleted": {**_MODEL, **_ALIAS},
    "prompt.created": {**_PROMPT, "tags": _TAGS, "description": "An example prompt"},
    "prompt_version.created": {
        **_PROMPT_VERSION,
        "template": "Hello {{name}}!",
        "tags": _TAGS,
        "description": "An example prompt version",
    },
    "prompt_tag.set": {**_PROMPT, **_TAG},
    "prompt_tag.deleted": {**_PROMPT, "key": "example_key"},
    "prompt_version_tag.set": {**_PROMPT_VERSION, **_TAG},
    "prompt_version_tag.deleted": {**_PROMPT_VERSION, "key": "example_key"},
    "prompt_alias.created": {**_PROMPT_VERSION, **_ALIAS},
    "prompt_alias.deleted": {**_PROMPT, **_ALIAS},
    "model_version.stage_transitioned": {**_VERSION, **_MOVED},
    "model_version.approved": {**_VERSION, **_APPROVED},
    "model_version.transition_refused": {**_VERSION, **_REFUSED},
}


def letter(webhook: Webhook, event: str, *, at: datetime) -> Letter:
    """An example of ``event`` for that webhook. Raises InvalidInput for an event that never happens."""
    if event not in SAMPLES:
        raise InvalidInput(f"{event!r} is no event that happens here", remedy=f"Try one of {', '.join(SAMPLES)}.")
    return Letter(str(uuid.uuid4()), webhook.url, webhook.secret, envelope(event, SAMPLES[event], at))
