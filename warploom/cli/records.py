"""What a job left behind: its events, its curves, its metadata."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warploom.cli.output import AsJson, client_of, console, emit_json, emit_line, shown, table
from warploom.errors import InvalidInput

if TYPE_CHECKING:
    from warploom.records import Event, Metrics

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `warploom jobs` lists it.")]
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_POINTS = 40


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (events, metrics, note):
        app.command(rich_help_panel="Training")(command)


def events(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of a job or a sweep.")],
    after: Annotated[str | None, typer.Option(help="Only events after the one of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print them as they happen, until the last.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what happened to a job or a sweep, oldest first, or follow it as it happens.

    `warploom watch` shows the same as a progress bar. With --follow --json each event is one line.

    Example: [bold]warploom events job_3f2a --follow[/]
    """
    with client_of(ctx) as client:
        sweep = id.startswith("sweep_")
        if not follow:
            page = client.sweep_history(id, limit, after) if sweep else client.history(id, limit, after)
            emit_json(page) if as_json else console.print(_events(page.data))
            return
        for event in client.sweep_events(id, after) if sweep else client.events(id, after):
            emit_line(event) if as_json else console.print(*_line(event), highlight=False, markup=False)


def metrics(
    ctx: typer.Context,
    id: JobId,
    keys: Annotated[list[str] | None, typer.Option("--key", help="Only this curve. May be repeated.")] = None,
    from_step: Annotated[int, typer.Option(min=0, help="The first round.")] = 0,
    max_points: Annotated[int | None, typer.Option(min=1, max=10_000, help="Most points of each curve.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a job's curves over its rounds: losses, held-out accuracy.

    Example: [bold]warploom metrics job_3f2a --key held_out/accuracy --json[/]
    """
    with client_of(ctx) as client:
        found = client.metrics(id, keys or (), from_step, max_points)
    emit_json(found) if as_json else console.print(_curves(found))


def note(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID | MODEL", help="A job's or sweep's id, or a model's name.")],
    pairs: Annotated[list[str], typer.Argument(metavar="NAME=VALUE", help="To set; NAME= removes one.")],
    as_json: AsJson = False,
) -> None:
    """Set or remove metadata of a job, a sweep or a model.

    Lists can be filtered by it.

    Example: [bold]warploom note job_3f2a owner=ada purpose=[/]
    """
    wanted: dict[str, str | None] = {name: value or None for name, value in map(_pair, pairs)}
    with client_of(ctx) as client:
        found: Any
        if what.startswith("job_"):
            found = client.note(what, wanted)
        elif what.startswith("sweep_"):
            found = client.note_sweep(what, wanted)
        else:
            found = client.note_model(what, wanted)
    emit_json(found) if as_json else console.print(table(("NAME", "VALUE"), sorted(found.metadata.items())))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInput(f"{text}: write it as name=value", rule="NAME=VALUE", value=text)
    return name, value


def pairs_of(texts: list[str] | None) -> dict[str, str] | None:
    """The metadata filter of a list, from `--metadata name=value` options. Raises InvalidInput."""
    return dict(map(_pair, texts)) if texts else None


def _events(found: list[Event]) -> Any:
    return table(("ID", "TIME", "KIND", "DATA"), [(event.id, *_line(event)) for event in found])


def _line(event: Event) -> tuple[str, str, str]:
    data = "  ".join(f"{name}={shown(value)}" for name, value in event.data.items())
    return datetime.fromtimestamp(event.at).strftime("%H:%M:%S"), event.kind, data


def _curves(found: Metrics) -> Any:
    rows = [
        (name, len(points), shown(points[0][1]), shown(points[-1][1]), _spark([value for _, value in points]))
        for name, points in sorted(found.curves.items())
        if points
    ]
    return table(("NAME", "POINTS", "FIRST", "LAST", ""), rows)


def _spark(values: list[float]) -> str:
    chosen = values[:: max(1, len(values) // SPARK_POINTS)]
    low, high = min(chosen), max(chosen)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[int((value - low) * scale)] for value in chosen)
