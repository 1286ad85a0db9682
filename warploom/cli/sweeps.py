"""Sweeps: searches over the fields of a job."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from warploom.cli.jobs import tell
from warploom.cli.output import AsJson, ago, client_of, console, emit_json, shown, state, table
from warploom.cli.specfile import Overrides, SpecPath, read
from warploom.errors import TimedOut
from warploom.records import FINAL_STATES, SUCCEEDED

if TYPE_CHECKING:
    from warploom.client import Client
    from warploom.client.handles import Sweep

POLL_S = 2.0
SweepId = Annotated[str, typer.Argument(metavar="ID", help="The sweep's id, as `warploom sweeps` lists it.")]


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (sweep, sweeps, stop, promote):
        app.command(rich_help_panel="Training")(command)


def sweep(
    ctx: typer.Context,
    spec: SpecPath,
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search over fields of a job, for example the inner step size.

    Example: [bold]warploom sweep sweep.json --set num_samples=4 --wait[/]
    """
    document = read(spec, overrides)
    with client_of(ctx) as client:
        found = client.sweep(document)
        if wait:
            found = _waited(client, found, quiet=as_json)
    if as_json:
        emit_json(found)
    elif wait:
        _show(found)
    else:
        console.print(f"[green]queued[/] [bold]{found.id}[/]; see it with: warploom sweeps {found.id}")
    if wait and found.state != SUCCEEDED:
        raise typer.Exit(1)


def sweeps(
    ctx: typer.Context,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show one sweep with its trials.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop the sweep ID.")] = False,
    as_json: AsJson = False,
) -> None:
    """List sweeps, newest first, or show one with its trials.

    Example: [bold]warploom sweeps sweep_51c0[/]
    """
    if id is None and cancel:
        raise typer.BadParameter("say which sweep: warploom sweeps ID --cancel")
    with client_of(ctx) as client:
        if id is not None:
            found = client.cancel_sweep(id) if cancel else client.get_sweep(id)
            emit_json(found) if as_json else _show(found)
            return
        page = client.sweeps()
    if as_json:
        emit_json(page)
        return
    rows = [(s.id, state(s.state), len(s.trials), s.best_trial, s.model, ago(s.created_at)) for s in page.data]
    console.print(table(("ID", "STATE", "TRIALS", "BEST", "MODEL", "CREATED"), rows))


def stop(ctx: typer.Context, id: SweepId, as_json: AsJson = False) -> None:
    """End a sweep early: no trial begins, those that run end after their round, and the best becomes a model.

    Example: [bold]warploom stop sweep_51c0[/]
    """
    with client_of(ctx) as client:
        tell(client.stop_sweep(id), as_json)


def promote(
    ctx: typer.Context,
    id: SweepId,
    trial: Annotated[str | None, typer.Option(metavar="ID", help="The trial; default the best so far.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default the sweep's.")] = None,
    alias: Annotated[str | None, typer.Option(help="An alias that is to stand for the version.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model of a sweep's best trial, or of one that you name; the sweep may still run.

    Example: [bold]warploom promote sweep_51c0 --name sine --alias stable[/]
    """
    with client_of(ctx) as client:
        model = client.promote_trial(id, trial, name, alias)
    emit_json(model) if as_json else console.print(f"[bold]{model.name}[/] version {model.version}", highlight=False)


def _waited(client: Client, found: Sweep, *, quiet: bool) -> Sweep:
    if quiet or not console.is_terminal:
        return client.wait_sweep(found.id)
    total = int(found.spec.get("num_samples", 0)) or None
    with Progress(
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as bar:
        task = bar.add_task(f"{found.id} trials", total=total)
        while found.state not in FINAL_STATES:
            with contextlib.suppress(TimedOut):
                found = client.wait_sweep(found.id, timeout_s=POLL_S)
            found = client.get_sweep(found.id)
            bar.update(task, completed=sum(trial.state != "running" for trial in found.trials))
    return found


def _show(found: Sweep) -> None:
    console.print(f"[bold]{found.id}[/] {state(found.state)}  model {found.model or '-'}", highlight=False)
    names = sorted({name for trial in found.trials for name in trial.parameters})
    rows = [
        (
            ("* " if trial.id == found.best_trial else "  ") + trial.id,
            state(trial.state),
            *(shown(trial.parameters.get(name)) for name in names),
            shown(trial.best),
            len(trial.curve),
        )
        for trial in found.trials
    ]
    console.print(table(("TRIAL", "STATE", *names, "BEST", "EVALUATIONS"), rows))
    if found.error is not None:
        console.print(f"[red]{escape(found.error.code)}:[/] {escape(found.error.message)}", highlight=False)
