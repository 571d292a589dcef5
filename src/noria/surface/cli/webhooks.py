"""`noria webhooks`: who is told of the registry's events, and what became of each."""

from __future__ import annotations

from typing import Annotated

import typer

from noria.events.outbox import list_deliveries
from noria.events.webhooks import get_webhook
from noria.events.webhooks import list_webhooks as all_webhooks
from noria.surface.cli.context import JsonOption, ProjectOption, clear_errors, open_records, show

app = typer.Typer(no_args_is_help=True, help="Webhooks of the server and their deliveries.")


@app.command(name="list")
@clear_errors
def list_webhooks(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the webhooks, without their secrets."""
    with open_records(project).database.read() as tx:
        rows = [
            {
                "webhook": webhook.webhook_id,
                "name": webhook.name,
                "url": webhook.url,
                "events": ", ".join(webhook.events),
                "status": webhook.status.value,
                "signed": "yes" if webhook.secret else "",
                "created_at": webhook.created_at,
            }
            for webhook in all_webhooks(tx)
        ]
    show(rows, as_json=as_json, title="Webhooks")


@app.command()
@clear_errors
def deliveries(
    webhook: Annotated[str, typer.Option(help="Only this webhook's, by its id.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest deliveries: what was sent, what waits, and why a delivery failed."""
    with open_records(project).database.read() as tx:
        if webhook:
            get_webhook(tx, webhook)
        rows = [
            {
                "delivery": delivery.delivery_id,
                "webhook": delivery.webhook,
                "event": delivery.event,
                "status": delivery.status.value,
                "attempts": delivery.attempts,
                "created_at": delivery.created_at,
                "settled_at": delivery.settled_at,
                "reason": delivery.reason,
            }
            for delivery in list_deliveries(tx, webhook or None, limit=limit)
        ]
    show(rows, as_json=as_json, title="Deliveries")
