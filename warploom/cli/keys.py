"""API keys: make, list, change, rotate, revoke. Needs a key of scope admin."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from warploom.cli.output import AsJson, ago, client_of, console, emit_json, facts, listed
from warploom.errors import InvalidInput

if TYPE_CHECKING:
    from warploom.records import ApiKey, NewApiKey

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `warploom keys list` shows it.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", help="jobs:read, jobs:write, adapt or admin; may be repeated. Of a new key: all but admin."
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=NUMBER", help="In place of the service's; may be repeated."),
]
DAY_S = 86_400.0


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    keys = typer.Typer(no_args_is_help=True, help="API keys: make, list, change, rotate, revoke (admins).")
    for name, command in (
        ("list", listing),
        ("show", show),
        ("create", create),
        ("update", update),
        ("rotate", rotate),
        ("revoke", revoke),
    ):
        keys.command(name)(command)
    app.add_typer(keys, name="keys", rich_help_panel="The service")


def listing(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this key.")] = None,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first, also revoked ones; never their secrets.

    Example: [bold]warploom keys list[/]
    """
    with client_of(ctx) as client:
        page = client.keys(limit, after)
    columns = ("ID", "NAME", "TENANT", "SCOPES", "STATE", "CREATED")
    listed(
        page, as_json, columns, lambda k: (k.id, k.name, k.tenant, k.scopes, _state(k), ago(k.created_at)), page.data
    )


def show(ctx: typer.Context, id: KeyId, as_json: AsJson = False) -> None:
    """Show what is known of one key.

    Example: [bold]warploom keys show key_3f2a[/]
    """
    with client_of(ctx) as client:
        found = client.key(id)
    emit_json(found) if as_json else console.print(facts(found.model_dump()))


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scopes: Scopes = None,
    tenant: Annotated[str | None, typer.Option(help="Whose objects it sees; default: your own tenant.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Days that it works; default: until revoked.")] = None,
    limits: Limits = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown once, here. `warploom limits` tells the names of limits.

    Example: [bold]warploom keys create ci --scope jobs:write --days 30 --limit jobs=2[/]
    """
    expires_at = None if days is None else time.time() + days * DAY_S
    with client_of(ctx) as client:
        _tell(client.create_key(name, scopes, tenant, expires_at, _limits(limits)), as_json)


def update(
    ctx: typer.Context,
    id: KeyId,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    scopes: Scopes = None,
    limits: Limits = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Only the service's limits from now on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change what is given; all scopes, or all limits of its own, are given anew. Its secret stays.

    Example: [bold]warploom keys update key_3f2a --scope jobs:read --limit jobs=1[/]
    """
    if limits and no_limits:
        raise typer.BadParameter("--limit and --no-limits are two answers")
    with client_of(ctx) as client:
        found = client.update_key(id, name, scopes, {} if no_limits else _limits(limits))
    emit_json(found) if as_json else console.print(facts(found.model_dump()))


def rotate(
    ctx: typer.Context,
    id: KeyId,
    grace_s: Annotated[float | None, typer.Option(min=0, help="Seconds that the old secret goes on working.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret, which is shown once, here.

    Example: [bold]warploom keys rotate key_3f2a --grace-s 600[/]
    """
    with client_of(ctx) as client:
        _tell(client.rotate_key(id, grace_s), as_json)


def revoke(ctx: typer.Context, id: KeyId, as_json: AsJson = False) -> None:
    """Have a key open nothing any more, at once.

    Example: [bold]warploom keys revoke key_3f2a[/]
    """
    with client_of(ctx) as client:
        found = client.revoke_key(id)
    emit_json(found) if as_json else console.print(f"{found.id}: revoked")


def _tell(made: NewApiKey, as_json: bool) -> None:
    if as_json:
        emit_json(made)
        return
    console.print(facts(made.model_dump(exclude={"secret"}, exclude_none=True)))
    console.print(f"the key, shown only now: [bold]{made.secret}[/]", highlight=False, soft_wrap=True)


def _limits(texts: list[str] | None) -> dict[str, int] | None:
    found = {}
    for text in texts or ():
        name, equals, number = text.partition("=")
        if not (name and equals and number.isascii() and number.isdecimal()):
            raise InvalidInput(f"{text}: write it as name=number", rule="NAME=NUMBER", value=text)
        found[name] = int(number)
    return found or None


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at < time.time() else "works"
