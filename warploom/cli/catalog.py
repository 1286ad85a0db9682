"""The catalogue: what a job may name."""

from __future__ import annotations

import typer

from warploom.cli.output import AsJson, console, emit_json, table


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("catalog", rich_help_panel="Training")(show)


def show(as_json: AsJson = False) -> None:
    """List the algorithms, task families and models that a job may name.

    With --json each comes with the JSON schema of its options.

    Example: [bold]warploom catalog[/]
    """
    from warploom.catalog import catalog

    found = catalog()
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
