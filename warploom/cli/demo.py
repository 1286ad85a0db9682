"""`warploom demo`: the whole service, from nothing to a table."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from warploom import demo as plan
from warploom.cli.embedded import Stack, running
from warploom.cli.live import RunView
from warploom.cli.output import Markup, console, percent, table
from warploom.errors import InvalidInput, TrainingFailed
from warploom.records import SUCCEEDED, Job

if TYPE_CHECKING:
    from warploom.client import Client

JobT = TypeVar("JobT", bound=Job)


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command(rich_help_panel="On this machine")(demo)


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder with logs and models.")] = False,
) -> None:
    """Start a service, meta-train on generated alphabets, and adapt to new ones.

    Needs no download and no running service; stops all it started. Shows for alphabets that were never seen: accuracy
    before adaptation, after it, and after the same steps from an untrained model.

    Example: [bold]warploom demo --json demo.json[/]
    """
    if json_file is not None and not json_file.parent.is_dir():
        raise InvalidInput(f"cannot write {json_file}: no such folder", field="--json", rule="an existing folder")
    begin = time.monotonic()
    console.print("starting Redis, Ray, the workers and the API in a temporary folder …")
    with running(keep=keep, say=lambda line: console.print(f"[dim]{line}[/]", highlight=False)) as stack:
        console.print(f"service at {stack.url} after {time.monotonic() - begin:.1f} s", highlight=False)
        job, rows = _run(stack)
    seconds = time.monotonic() - begin
    _show(rows, seconds)
    if json_file is not None:
        document = plan.report(rows, seconds, job.model_dump(mode="json"))
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _run(stack: Stack) -> tuple[Job, list[plan.Row]]:
    from warploom.client import Client

    with Client(stack.url, stack.api_key) as client:
        job = client.submit(plan.TRAINED)
        console.print(f"submitted {job.id}: WarpGrad on generated alphabets", highlight=False)
        with RunView(console, "training") as view:
            for event in client.events(job.id):
                view.on_event(event.kind, event.data)
        job = _succeeded(client.job(job.id))
        # One after the other: on a small machine two jobs at once take each other's processors.
        with console.status("making the untrained model"):
            _succeeded(client.wait(client.submit(plan.UNTRAINED).id, timeout_s=300))
        return job, _measure(client)


def _measure(client: Client) -> list[plan.Row]:
    rows = []
    trained, untrained = plan.TRAINED["name"], plan.UNTRAINED["name"]
    with console.status("adapting to alphabets that were never seen"):
        for row in plan.measure(client, trained, untrained, plan.TASK, plan.TASKS):
            rows.append(row)
    return rows


def _succeeded(job: JobT) -> JobT:
    if job.state == SUCCEEDED:
        return job
    reason = job.error.message if job.error else "no reason was given"
    raise TrainingFailed(f"job {job.id} ({job.name}) {job.state}: {reason}; run again with --keep to see the logs")


def _show(rows: list[plan.Row], seconds: float) -> None:
    lines: list[tuple[str, ...]] = [
        (row.task, percent(row.before), percent(row.after), percent(row.untrained)) for row in rows
    ]
    total = plan.mean(rows)
    numbers = (total.before, total.after, total.untrained)
    lines.append((Markup("[bold]mean[/]"), *(Markup(f"[bold]{percent(value)}[/]") for value in numbers)))
    names = ("NEW TASK", "BEFORE ADAPTATION", "AFTER ADAPTATION", "UNTRAINED MODEL, SAME STEPS")
    console.print()
    console.print(table(names, lines, title="Accuracy on held-out examples of alphabets that were never seen"))
    console.print(f"\n{len(rows)} tasks, {seconds:.1f} s in all", highlight=False)
