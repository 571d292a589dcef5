"""`noria webhooks`: who is told of the registry's events, and what became of each."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from noria.clock import SystemClock
from noria.errors import Unavailable
from noria.events.entities import WebhookStatus
from noria.events.outbox import list_deliveries
from noria.events.post import post
from noria.events.samples import letter
from noria.events.webhooks import create_webhook, get_webhook
from noria.events.webhooks import list_webhooks as all_webhooks
from noria.events.webhooks import resend as send_again
from noria.surface.cli.context import (
    JsonOption,
    ProjectOption,
    actor,
    clear_errors,
    open_governed,
    open_records,
    out,
    show,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Webhooks of the server and their deliveries.")
WebhookArgument = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id, as `noria webhooks list` shows it.")]


@app.command()
@clear_errors
def create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    url: Annotated[str, typer.Argument(help="Where events are posted to.")],
    event: Annotated[list[str], typer.Option(help="An event to be told of; may be given several times.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Read the secret that signs from stdin.")
    ] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Tell it of nothing yet.")] = False,
    project: ProjectOption = None,
) -> None:
    """Make a webhook and print its id; a running server begins to send within half a minute."""
    workspace, status = open_records(project), WebhookStatus.DISABLED if disabled else WebhookStatus.ACTIVE
    secret = sys.stdin.readline().rstrip("\n") if secret_stdin else ""
    with workspace.database.write() as tx:
        made = create_webhook(
            tx,
            name=name,
            url=url,
            events=event,
            description=description,
            secret=secret,
            status=status,
            at=SystemClock().now(),
            actor=actor(),
        )
    out.print(made.webhook_id, highlight=False)


@app.command()
@clear_errors
def test(
    webhook: WebhookArgument,
    event: Annotated[str, typer.Option(help="Which event; the first it asks for when not given.")] = "",
    project: ProjectOption = None,
) -> None:
    """Send an example of an event at once, and say what the receiver answered."""
    settings, workspace = open_governed(project)
    with workspace.database.read() as tx:
        found = get_webhook(tx, webhook)
    now = SystemClock().now()
    answer = post(
        letter(found, event or found.events[0], at=now), at=now, allow_private=settings.webhooks.allow_private
    )
    if not 200 <= answer.status < 300:
        said = f"{found.name} answered HTTP {answer.status}: {answer.body[:200]}"
        raise Unavailable(said, remedy="See the receiver's own log.")
    out.print(f"{found.name} answered HTTP {answer.status}", highlight=False)


@app.command()
@clear_errors
def resend(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, as `noria webhooks deliveries` has it.")],
    project: ProjectOption = None,
) -> None:
    """Let the server send a delivery again that failed for good, under the same id."""
    with open_records(project).database.write() as tx:
        again = send_again(tx, delivery, at=SystemClock().now(), actor=actor())
    out.print(f"{again.event} goes to {again.webhook} once more", highlight=False)


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
