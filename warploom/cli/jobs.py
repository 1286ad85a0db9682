"""Jobs: submit, list, watch; and jobs and sweeps: pause, resume, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from warploom.cli.live import RunView
from warploom.cli.output import AsJson, ago, client_of, console, emit_json, held_out, shown, size, state, table
from warploom.cli.records import JobId, pairs_of
from warploom.cli.specfile import Overrides, SpecPath, read
from warploom.records import SUCCEEDED

if TYPE_CHECKING:
    from warploom.client import Client
    from warploom.records import DryRun, Job, Sweep

JobOrSweep = Annotated[str, typer.Argument(metavar="ID", help="The id of a job or a sweep.")]


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (submit, jobs, watch, pause, resume, cancel):
        app.command(rich_help_panel="Training")(command)


def submit(
    ctx: typer.Context,
    spec: SpecPath,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check it: print the complete spec and an estimate.")
    ] = False,
    watching: Annotated[bool, typer.Option("--watch", help="Stay and show the progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a meta-training job to the service.

    Example: [bold]warploom submit job.json --set training.rounds=20 --watch[/]
    """
    document = read(spec, overrides)
    with client_of(ctx) as client:
        if dry_run:
            checked = client.dry_run(document)
            emit_json(checked) if as_json else _estimate(checked)
            return
        job = client.submit(document)
        if as_json:
            emit_json(job)
        else:
            console.print(f"[green]queued[/] [bold]{job.id}[/]; follow it with: warploom watch {job.id}")
        if watching:
            _follow(client, job.id, as_json)


def jobs(
    ctx: typer.Context,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show one job in full.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many to list.")] = 20,
    only: Annotated[str | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only jobs with this metadata. May be repeated.")
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In the order of their submission.")] = False,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this job.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first, or show one.

    Example: [bold]warploom jobs --state running[/]
    """
    with client_of(ctx) as client:
        if id is not None:
            job = client.job(id)
            emit_json(job) if as_json else _show(job)
            return
        order = "asc" if oldest_first else None
        page = client.jobs(limit=limit, after=after, state=only, order=order, metadata=pairs_of(metadata))
    if as_json:
        emit_json(page)
        return
    rows = [
        (
            job.id,
            state(job.state),
            job.spec.get("algorithm", {}).get("name"),
            job.spec.get("task", {}).get("name"),
            f"{job.progress.meta_step}/{job.progress.total}",
            held_out(job.progress.metrics),
            ago(job.created_at),
        )
        for job in page.data
    ]
    console.print(table(("ID", "STATE", "ALGORITHM", "TASK", "ROUND", "HELD OUT", "CREATED"), rows))
    if page.has_more:
        console.print(f"[dim]there are more: --after {page.data[-1].id}[/]", highlight=False)


def watch(ctx: typer.Context, id: JobId, as_json: AsJson = False) -> None:
    """Show a job's progress live until it ends: rounds, loss, held-out accuracy, time left.

    The exit code is 0 when the job succeeded. Leaving with Ctrl-C does not stop the job.

    Example: [bold]warploom watch job_3f2a[/]
    """
    with client_of(ctx) as client:
        _follow(client, id, as_json)


def pause(ctx: typer.Context, id: JobOrSweep, as_json: AsJson = False) -> None:
    """Let a job rest: it saves a checkpoint and frees its machines until it is resumed. A sweep rests with its trials.

    Example: [bold]warploom pause job_3f2a[/]
    """
    with client_of(ctx) as client:
        tell(client.pause_sweep(id) if _is_sweep(id) else client.pause(id), as_json)


def resume(ctx: typer.Context, id: JobOrSweep, as_json: AsJson = False) -> None:
    """Queue a paused job or sweep again; it goes on from where it was.

    Example: [bold]warploom resume job_3f2a[/]
    """
    with client_of(ctx) as client:
        tell(client.resume_sweep(id) if _is_sweep(id) else client.resume(id), as_json)


def cancel(ctx: typer.Context, id: JobOrSweep, as_json: AsJson = False) -> None:
    """End a job, whose last checkpoint stays, or a sweep; `stop` ends a sweep with a model.

    Example: [bold]warploom cancel job_3f2a[/]
    """
    with client_of(ctx) as client:
        tell(client.cancel_sweep(id) if _is_sweep(id) else client.cancel(id), as_json)


def _is_sweep(id: str) -> bool:
    return id.startswith("sweep_")


def _estimate(checked: DryRun) -> None:
    found = checked.estimate.model_dump(exclude={"notes"})
    shown_as = {name: size(value) if "bytes" in name and value is not None else value for name, value in found.items()}
    console.print(table(("ESTIMATE", ""), [(name.replace("_", " "), value) for name, value in shown_as.items()]))
    for line in checked.estimate.notes:
        console.print(f"[yellow]note:[/] {escape(line)}", highlight=False)
    console.print("[dim]nothing was submitted; --json prints the complete spec[/]")


def tell(record: Job | Sweep, as_json: bool) -> None:
    """Say in which state a job or sweep is now."""
    emit_json(record) if as_json else console.print(f"{record.id}: {state(record.state)}")


def _follow(client: Client, id: str, as_json: bool) -> None:
    with RunView(console, id, as_json=as_json) as view:
        for event in client.events(id):
            view.on_event(event.kind, event.data)
    job = client.job(id)
    if not as_json and job.error is not None:
        console.print(f"[red]{escape(job.error.code)}:[/] {escape(job.error.message)}", highlight=False)
    if job.state != SUCCEEDED:
        raise typer.Exit(1)


def _show(job: Job) -> None:
    rows = [
        ("id", job.id),
        ("state", state(job.state)),
        ("phase", job.phase),
        *([("waits for", job.queue_reason)] if job.queue_reason else []),
        ("model", job.model),
        ("created", ago(job.created_at)),
        ("round", f"{job.progress.meta_step}/{job.progress.total}"),
        ("tasks done", job.progress.tasks_done),
        *((name, shown(value)) for name, value in sorted(job.progress.metrics.items())),
        *((f"metadata {name}", value) for name, value in sorted(job.metadata.items())),
        *((name, job.spec.get(name, {}).get("name")) for name in ("algorithm", "task", "model") if job.spec),
    ]
    if job.error is not None:
        rows.append(("error", f"{job.error.code}: {job.error.message}"))
    console.print(table(("", ""), rows))
