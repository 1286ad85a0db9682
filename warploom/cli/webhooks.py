"""Webhooks: make, list, change, rotate, test and delete them, and see what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warploom.cli.output import AsJson, ago, client_of, console, emit_json, facts, listed

if TYPE_CHECKING:
    from warploom.records import Delivery, NewWebhook, Webhook

HookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id, as `warploom webhooks list` shows it.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="job.succeeded, job.failed or job.cancelled; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    hooks = typer.Typer(no_args_is_help=True, help="Webhooks: addresses that are told when jobs end.")
    for name, command in (
        ("list", listing),
        ("show", show),
        ("create", create),
        ("update", update),
        ("rotate", rotate),
        ("delete", delete),
        ("test", test),
        ("deliveries", deliveries),
    ):
        hooks.command(name)(command)
    app.add_typer(hooks, name="webhooks", rich_help_panel="The service")


def listing(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List webhooks, oldest first; never their secrets.

    Example: [bold]warploom webhooks list[/]
    """
    with client_of(ctx) as client:
        found = client.webhooks()
    columns = ("ID", "URL", "EVENTS", "STATE", "DESCRIPTION", "CREATED")
    listed(
        found,
        as_json,
        columns,
        lambda h: (h.id, h.url, h.events, _state(h), h.description or None, ago(h.created_at)),
        found,
    )


def show(ctx: typer.Context, id: HookId, as_json: AsJson = False) -> None:
    """Show one webhook.

    Example: [bold]warploom webhooks show hook_3f2a[/]
    """
    with client_of(ctx) as client:
        _show(client.webhook(id), as_json)


def create(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages go: https, and a public address.")],
    events: Events = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Have an address told when jobs end; of all ends unless --event names some. Its secret is shown once, here.

    Example: [bold]warploom webhooks create https://example.com/ended --event job.failed[/]
    """
    with client_of(ctx) as client:
        _tell(client.create_webhook(url, events, description), as_json)


def update(
    ctx: typer.Context,
    id: HookId,
    url: Annotated[str | None, typer.Option(help="Where messages go from now on.")] = None,
    events: Events = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given, and try one again that was disabled because it answered 410.

    Example: [bold]warploom webhooks update hook_3f2a --event job.failed --event job.cancelled[/]
    """
    with client_of(ctx) as client:
        _show(client.update_webhook(id, url, events, description), as_json)


def rotate(
    ctx: typer.Context,
    id: HookId,
    grace_s: Annotated[float | None, typer.Option(min=0, help="Seconds in which the old secret signs too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a webhook a new secret, which is shown once, here; for a day, or --grace-s, the old one signs too.

    Example: [bold]warploom webhooks rotate hook_3f2a --grace-s 3600[/]
    """
    with client_of(ctx) as client:
        _tell(client.rotate_webhook(id, grace_s), as_json)


def delete(ctx: typer.Context, id: HookId, as_json: AsJson = False) -> None:
    """Forget a webhook; messages on their way are given up.

    Example: [bold]warploom webhooks delete hook_3f2a[/]
    """
    with client_of(ctx) as client:
        client.delete_webhook(id)
    emit_json({"id": id, "deleted": True}) if as_json else console.print(f"{id}: deleted")


def test(ctx: typer.Context, id: HookId, as_json: AsJson = False) -> None:
    """Have a message of type webhook.test sent.

    Example: [bold]warploom webhooks test hook_3f2a[/]
    """
    with client_of(ctx) as client:
        sent = client.test_webhook(id)
    if as_json:
        emit_json(sent)
        return
    console.print(f"{sent.id} is on its way; see how it goes with: warploom webhooks deliveries {id}", highlight=False)


def deliveries(ctx: typer.Context, id: HookId, as_json: AsJson = False) -> None:
    """List a webhook's last messages, newest first, with what came of them.

    Example: [bold]warploom webhooks deliveries hook_3f2a[/]
    """
    with client_of(ctx) as client:
        found = client.deliveries(id)
    columns = ("ID", "EVENT", "STATE", "TRIES", "LAST ANSWER", "CREATED")
    listed(
        found, as_json, columns, lambda d: (d.id, d.event, d.state, len(d.attempts), _last(d), ago(d.created_at)), found
    )


def _tell(made: NewWebhook, as_json: bool) -> None:
    if as_json:
        emit_json(made)
        return
    console.print(facts(made.model_dump(exclude={"secret"}, exclude_none=True)))
    console.print(f"its secret, shown only now: [bold]{made.secret}[/]", highlight=False, soft_wrap=True)


def _show(hook: Webhook, as_json: bool) -> None:
    emit_json(hook) if as_json else console.print(facts(hook.model_dump()))


def _state(hook: Webhook) -> str:
    return "works" if hook.disabled_at is None else f"disabled {ago(hook.disabled_at)}"


def _last(delivery: Delivery) -> str | int | None:
    return (delivery.attempts[-1].status or delivery.attempts[-1].error) if delivery.attempts else None
