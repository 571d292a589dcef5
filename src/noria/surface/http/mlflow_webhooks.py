"""The webhook part of MLflow's protocol; Noria's own events stand in a field beside, where no client trips on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noria.clock import to_millis
from noria.errors import Forbidden, InvalidInput, Unavailable
from noria.events import MLFLOW_EVENTS, OWN_EVENTS, Webhook, samples
from noria.events.delivery import Sender
from noria.events.entities import WebhookStatus
from noria.events.webhooks import create_webhook, delete_webhook, get_webhook, list_webhooks, update_webhook
from noria.surface.http.mlflow_call import Call, Handler

Json = Mapping[str, object]


def handlers(sender: Sender) -> Mapping[tuple[str, str], Handler]:
    """The endpoints, over the sender that a first webhook wakes and a test goes through."""

    def create(call: Call) -> Json:
        made = _create(call)
        sender.start()
        return made

    return {
        ("POST", "/webhooks"): create,
        ("GET", "/webhooks"): _list,
        ("GET", "/webhooks/{webhook_id}"): _get,
        ("PATCH", "/webhooks/{webhook_id}"): _update,
        ("DELETE", "/webhooks/{webhook_id}"): _delete,
        ("POST", "/webhooks/{webhook_id}/test"): lambda call: _test(call, sender),
    }


def _create(call: Call) -> Json:
    name, url, events = call.required("name"), call.required("url"), _events(call)
    if not events:
        raise InvalidInput("Missing value for required parameter 'events'.", remedy="Send events.")
    with call.workspace.database.write() as tx:
        made = create_webhook(
            tx,
            name=name,
            url=url,
            events=events,
            description=call.text("description", ""),
            secret=call.text("secret", ""),
            status=_status(call) or WebhookStatus.ACTIVE,
            at=call.clock.now(),
            actor=call.actor,
        )
    return {"webhook": _webhook(made)}


def _list(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        page, rest = call.page(list_webhooks(tx), default_size=100, largest=1000)
    return {"webhooks": [_webhook(item) for item in page], **rest}


def _get(call: Call) -> Json:
    with call.workspace.database.read() as tx:
        return {"webhook": _webhook(get_webhook(tx, call.path["webhook_id"]))}


def _update(call: Call) -> Json:
    given = {key: call.text(key) for key in ("name", "url", "description", "secret") if key in call.arguments}
    with call.workspace.database.write() as tx:
        changed = update_webhook(
            tx,
            call.path["webhook_id"],
            events=_events(call, get_webhook(tx, call.path["webhook_id"]).events),
            status=_status(call),
            at=call.clock.now(),
            actor=call.actor,
            **given,
        )
    return {"webhook": _webhook(changed)}


def _delete(call: Call) -> Json:
    with call.workspace.database.write() as tx:
        delete_webhook(tx, call.path["webhook_id"], at=call.clock.now(), actor=call.actor)
    return {}


def _test(call: Call, sender: Sender) -> Json:
    """Send an example now; how that went is the answer."""
    with call.workspace.database.read() as tx:
        webhook = get_webhook(tx, call.path["webhook_id"])
    event = _event(call.arguments["event"]) if call.arguments.get("event") else webhook.events[0]
    try:
        answer = sender.post(samples.letter(webhook, event, at=call.clock.now()))
    except (Forbidden, Unavailable) as error:
        return {"result": {"success": False, "error_message": str(error)}}
    result = {"success": answer.status < 300, "response_status": answer.status, "response_body": answer.body}
    return {"result": result}


def _events(call: Call, before: Sequence[str] = ()) -> list[str]:
    """MLflow's events and Noria's own that are asked for; of those not sent, what was asked before."""
    of_mlflow = [_event(item) for item in call.objects("events")]
    own = call.texts("noria_events") if "noria_events" in call.arguments else None
    return [
        *(of_mlflow or [event for event in before if event in MLFLOW_EVENTS]),
        *([event for event in before if event in OWN_EVENTS] if own is None else own),
    ]


def _event(item: Mapping[str, Any]) -> str:
    if not isinstance(item, dict) or not all(isinstance(item.get(part), str) for part in ("entity", "action")):
        raise InvalidInput("an event is no entity and action", remedy='Send {"entity": ..., "action": ...}.')
    return f"{item['entity']}.{item['action']}".lower()


def _status(call: Call) -> WebhookStatus | None:
    if not (status := call.text("status", "")):
        return None
    if status not in WebhookStatus.__members__:
        raise InvalidInput(f"{status!r} is no status of a webhook", remedy="Use ACTIVE or DISABLED.")
    return WebhookStatus[status]


def _webhook(webhook: Webhook) -> Json:
    split = [event.upper().partition(".") for event in webhook.events if event in MLFLOW_EVENTS]
    document: dict[str, object] = {
        "webhook_id": webhook.webhook_id,
        "name": webhook.name,
        "url": webhook.url,
        "events": [{"entity": entity, "action": action} for entity, _, action in split],
        "status": webhook.status.value,
        "creation_timestamp": to_millis(webhook.created_at),
        "last_updated_timestamp": to_millis(webhook.updated_at),
    }
    own = [event for event in webhook.events if event in OWN_EVENTS]
    extra: dict[str, object] = {"description": webhook.description, "noria_events": own}
    return document | {key: value for key, value in extra.items() if value}
