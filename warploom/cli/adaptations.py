"""Adaptations that the service keeps: predict with one, see it, fetch it, drop it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warploom.cli.adapting import pick, predictions, read_arrays, save
from warploom.cli.models import write
from warploom.cli.output import AsJson, client_of, console, emit_json, facts
from warploom.cli.pictures import SUFFIXES, files_of

AdaptationId = Annotated[str, typer.Argument(metavar="ID", help="The adaptation's id, as `warploom adapt` prints it.")]


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (predict, adaptation):
        app.command(rich_help_panel="Models")(command)


def predict(
    ctx: typer.Context,
    id: AdaptationId,
    query: Annotated[
        Path,
        typer.Option(help="What to predict: an .npz file with array x (or query_x); a picture, or a folder of them."),
    ],
    out: Annotated[Path | None, typer.Option(help="Write labels and outputs to this .npz file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict with a model that was adapted before.

    Example: [bold]warploom predict adapt_7c1e --query q.npz[/]
    """
    names: list[str] = []
    with client_of(ctx) as client:
        if query.is_dir() or query.suffix.lower() in SUFFIXES:
            names = [str(path) for path in files_of(query)]
            found = client.predict_pictures(id, names)
        else:
            found = client.predict(id, pick(read_arrays(query), query, "x", "query_x"))
    if out is not None:
        save(out, found)
    if as_json:
        emit_json({**found.model_dump(mode="json"), "queries": names} if names else found)
    else:
        predictions(found, queries=names)


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
