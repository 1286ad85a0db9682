"""Adaptations that the service keeps: predict with one, see it, fetch it, drop it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warploom.cli.adapting import pick, predictions, read_arrays, save
from warploom.cli.models import write
from warploom.cli.output import AsJson, client_of, console, emit_json, facts

AdaptationId = Annotated[str, typer.Argument(metavar="ID", help="The adaptation's id, as `warploom adapt` prints it.")]


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (predict, adaptation):
        app.command(rich_help_panel="Models")(command)


def predict(
    ctx: typer.Context,
    id: AdaptationId,
    query: Annotated[Path, typer.Option(help="An .npz file with array x (or query_x) to predict.")],
    out: Annotated[Path | None, typer.Option(help="Write labels and outputs to this .npz file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict with a model that was adapted before.

    Example: [bold]warploom predict adapt_7c1e --query q.npz[/]
    """
    query_x = pick(read_arrays(query), query, "x", "query_x")
    with client_of(ctx) as client:
        found = client.predict(id, query_x)
    if out is not None:
        save(out, found)
    emit_json(found) if as_json else predictions(found)


def adaptation(
    ctx: typer.Context,
    id: AdaptationId,
    download: Annotated[
        Path | None, typer.Option(help="Write the adapted parameters (safetensors) to this file.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Drop it now; it expires by itself later.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show an adaptation, fetch its parameters, or drop it.

    Example: [bold]warploom adaptation adapt_7c1e --download adapted.safetensors[/]
    """
    with client_of(ctx) as client:
        found = client.adaptation(id)
        if download is not None:
            write(download, client.adapted_weights(id))
        if forget:
            client.forget(id)
    if as_json:
        emit_json(found)
        return
    console.print(facts(found.model_dump(exclude={"losses", "prediction"})))
    if forget:
        console.print(f"{id}: dropped")
