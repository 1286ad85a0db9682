"""What every command shares: where it prints, how it prints, and the service that it talks to."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from warploom.errors import WarploomError
from warploom.printable import printable

if TYPE_CHECKING:
    from warploom.client import Client

# In a file or a pipe there is no edge to wrap at.
console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
COLOURS = {
    "queued": "yellow",
    "running": "cyan",
    "pausing": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "stopped": "yellow",
    "cancelling": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


class Session:
    """What the options before the command say; kept as the context's object."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url

    def client(self) -> Client:
        """A client of the chosen service."""
        from warploom.client import Client

        return Client(self.url)


def client_of(ctx: typer.Context) -> Client:
    """The client that this command uses."""
    session = ctx.find_object(Session) or Session()
    return session.client()


def one_line(error: WarploomError) -> str:
    """An error with field, rule and value, as far as its message does not say them already.

    A message of several lines (the end of a log) keeps the others below.
    """
    message, *below = error.message.splitlines() or [error.code]
    extra = [f"field {error.field}"] if error.field and error.field not in message else []
    # A rule of one word is a code for programs, and "object" the short form of what cannot be shown.
    if error.rule and " " in error.rule and error.rule not in message:
        extra.append(f"rule: {error.rule}")
    if error.value not in (None, "object") and str(error.value) not in message:
        extra.append(f"got {error.value!r}"[:120])
    lines = [message + (f" ({', '.join(extra)})" if extra else ""), *below]
    return escape("\n".join(map(printable, lines)))


def emit_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def emit_line(value: Any) -> None:
    """One JSON document on one line, for streams."""
    typer.echo(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A table; cells are shown as they are, never read as markup (except `state` results)."""
    result = Table(title=title, header_style="bold", box=None, pad_edge=False, padding=(0, 2))
    for number, name in enumerate(columns):
        # The first column identifies the row, and people copy it.
        result.add_column(name, no_wrap=number == 0)
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Markup) else escape(shown(cell)) for cell in row))
    return result


def listed(
    found: Any, as_json: bool, columns: Sequence[str], row: Callable[[Any], Sequence[Any]], entries: Iterable[Any]
) -> None:
    """What was found, as JSON for programs or as a table for people.

    Args:
        found: all of it.
        as_json: for programs.
        columns: of the table.
        row: an entry's cells.
        entries: of what was found.
    """
    emit_json(found) if as_json else console.print(table(columns, map(row, entries)))


class Markup(str):
    """Text that is meant to be read as rich markup."""


def state(name: str) -> Markup:
    """A state in its colour."""
    return Markup(f"[{COLOURS.get(name, 'white')}]{escape(name)}[/]")


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def facts(document: Mapping[str, Any]) -> Table:
    """An object's fields as a table of two columns; times as dates."""
    rows = [
        (name, datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M:%S") if _is_time(name, value) else value)
        for name, value in document.items()
    ]
    return table(("FIELD", "VALUE"), rows)


def _is_time(name: str, value: Any) -> bool:
    return isinstance(value, float) and name.endswith(("_at", "_until"))


def percent(value: float | None) -> str:
    """A fraction as a percentage."""
    return "-" if value is None else f"{100 * value:.1f} %"


def held_out(metrics: Mapping[str, float]) -> str:
    """The last measurement on held-out tasks: accuracy where there is one, else the loss."""
    if "accuracy" in metrics or "loss" not in metrics:
        return percent(metrics.get("accuracy"))
    return f"loss {metrics['loss']:.4g}"


def ago(at: float) -> str:
    """How long ago a time (seconds since the epoch) was."""
    seconds = max(time.time() - at, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def size(count: int) -> str:
    """A number of bytes with a unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
