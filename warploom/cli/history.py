"""What a job leaves behind beside its events: its log, its checkpoints, where it comes from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warploom.cli.models import write
from warploom.cli.output import AsJson, ago, client_of, console, emit_json, emit_line, facts, held_out, size, table
from warploom.cli.records import JobId
from warploom.printable import printable

if TYPE_CHECKING:
    from warploom.records import LogLine


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (logs, checkpoints, lineage):
        app.command(rich_help_panel="Training")(command)


def logs(
    ctx: typer.Context,
    id: JobId,
    tail: Annotated[int, typer.Option(min=0, max=5000, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
    worker: Annotated[str | None, typer.Option(help="Only those of this worker, for example rollout-0.")] = None,
    level: Annotated[str | None, typer.Option(help="Only those of this level or above, for example warning.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a job's workers say. With --follow --json each line is one document.

    Example: [bold]warploom logs job_3f2a --follow --level warning[/]
    """
    with client_of(ctx) as client:
        if follow:
            for line in client.follow_logs(id, tail, worker, level):
                emit_line(line) if as_json else _say(line)
            return
        page = client.logs(id, tail, worker, level)
    if as_json:
        emit_json(page)
        return
    for line in page.data:
        _say(line)
    if not page.data:
        console.print("[dim]no lines[/]")


def checkpoints(
    ctx: typer.Context,
    id: JobId,
    download: Annotated[int | None, typer.Option(metavar="STEP", help="Fetch the one of this step.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for --download. Default: ID-STEP.safetensors.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a job's checkpoints, or fetch one.

    A new job begins with one by [bold]--set from_checkpoint=ID[/] at its submission.

    Example: [bold]warploom checkpoints job_3f2a --download 200[/]
    """
    with client_of(ctx) as client:
        if download is not None:
            path = out or Path(f"{id}-{download}.safetensors")
            write(path, client.download_checkpoint(id, download))
            emit_json({"path": str(path)}) if as_json else console.print(f"written to {path}")
            return
        found = client.checkpoints(id)
    if as_json:
        emit_json(found)
        return
    rows = [(one.id, one.step, size(one.bytes), held_out(one.metrics), ago(one.created_at)) for one in found]
    console.print(table(("ID", "STEP", "SIZE", "HELD OUT", "STORED"), rows))


def lineage(ctx: typer.Context, id: JobId, as_json: AsJson = False) -> None:
    """Say where a job comes from and what ran it: enough to do it again. --json gives the specs too.

    Example: [bold]warploom lineage job_3f2a --json[/]
    """
    with client_of(ctx) as client:
        found = client.lineage(id)
    if as_json:
        emit_json(found)
        return
    console.print(facts(found.model_dump(exclude={"sent", "spec", "versions"}) | found.versions))


def _say(line: LogLine) -> None:
    at = datetime.fromtimestamp(line.at).strftime("%H:%M:%S")
    first, *below = line.message.split("\n")
    console.print(
        f"{at} {line.worker:<12} {line.level:<8} {printable(first)}", highlight=False, markup=False, soft_wrap=True
    )
    for more in below:  # of a trace; indented, so that none looks like a line of its own
        console.print(f"    {printable(more)}", highlight=False, markup=False, soft_wrap=True)
