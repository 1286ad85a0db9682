"""The catalogue: what a job may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warploom.cli.output import AsJson, client_of, console, emit_json, table

if TYPE_CHECKING:
    from warploom.records import Catalog


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("catalog", rich_help_panel="Training")(show)


def show(
    ctx: typer.Context,
    remote: Annotated[bool, typer.Option("--remote", help="What the service knows, not this installation.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the algorithms, task families and models that a job may name.

    With --json each comes with the JSON schema of its options.

    Example: [bold]warploom catalog[/]
    """
    found = _remote(ctx) if remote else _local()
    if as_json:
        emit_json(found)
        return
    for title, entries in (
        ("Algorithms", found.algorithms),
        ("Tasks", found.tasks),
        ("Models", found.models),
    ):
        console.print(f"\n[bold]{title}[/]")
        console.print(table(("NAME", "WHAT", "SOURCE"), [(e.name, e.summary, e.source) for e in entries]))


def _local() -> Catalog:
    from warploom.catalog import catalog

    return catalog()


def _remote(ctx: typer.Context) -> Catalog:
    with client_of(ctx) as client:
        return client.catalog()
