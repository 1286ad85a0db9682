"""The service as it runs: is it well, what may a key do."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warploom.cli.output import AsJson, client_of, console, emit_json, facts, listed, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from warploom.records import AuditEntry


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (health, limits, whoami, usage, audit):
        app.command(rich_help_panel="The service")(command)


def health(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Say whether the service can work, its parts, and its version. Exit code 1 when it cannot.

    Example: [bold]warploom health[/]
    """
    with client_of(ctx) as client:
        found = client.with_options(max_retries=0).health() | client.version()
    if as_json:
        emit_json(found)
        return
    parts = found.get("parts")
    rows = [(name, value) for name, value in found.items() if name != "parts"]
    console.print(facts(dict([*rows, *(parts.items() if isinstance(parts, dict) else ())])))


def limits(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the service's limits, and those of your key with what is used of them.

    Example: [bold]warploom limits[/]
    """
    with client_of(ctx) as client:
        found = client.limits()
    if as_json:
        emit_json(found)
        return
    of_key = found.pop("limits", None)
    console.print(table(("SERVICE", "LIMIT"), found.items()))
    if isinstance(of_key, dict):
        rows = [(name, use.get("limit"), use.get("used"), use.get("reset_s")) for name, use in of_key.items()]
        console.print(table(("YOUR KEY", "LIMIT", "USED", "SECONDS UNTIL FREE"), rows))


def whoami(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Say whose key this is: its name, tenant and scopes.

    Example: [bold]warploom whoami[/]
    """
    with client_of(ctx) as client:
        found = client.whoami()
    emit_json(found) if as_json else console.print(facts(found.model_dump()))


def usage(
    ctx: typer.Context,
    days: Annotated[int, typer.Option(min=1, help="How many days back, today included.")] = 30,
    key: Annotated[str | None, typer.Option(metavar="ID", help="Another key, for admins.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a key used by day: requests, jobs, tasks, calls, rows, bytes.

    Example: [bold]warploom usage --days 7[/]
    """
    with client_of(ctx) as client:
        found = client.usage(days, key)
    names = ("requests", "jobs", "sweeps", "tasks", "adapt_calls", "predict_calls", "rows", "bytes")
    columns = ("DAY", *(name.replace("_", " ").upper() for name in names))
    listed(found, as_json, columns, lambda day: (day.date, *(f"{getattr(day, name):,}" for name in names)), found)


def audit(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this entry.")] = None,
    as_json: AsJson = False,
) -> None:
    """List who changed what, or was refused, newest first. Needs a key of scope admin.

    Example: [bold]warploom audit --limit 20[/]
    """
    with client_of(ctx) as client:
        page = client.audit(limit, after)
    columns = ("ID", "TIME", "KEY", "ACTION", "TARGET", "STATUS", "FROM")
    listed(page, as_json, columns, _audited, page.data)


def _audited(entry: AuditEntry) -> Sequence[Any]:
    at = datetime.fromtimestamp(entry.at)
    return (entry.id, at, entry.key, entry.action, entry.target, entry.status, entry.address)
