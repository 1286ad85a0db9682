"""Without a service: train in this process, and get data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from warploom.cli.live import RunView
from warploom.cli.output import AsJson, console, emit_json, shown
from warploom.cli.specfile import Overrides, SpecPath, read
from warploom.errors import InvalidInput


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    app.command(rich_help_panel="Training")(train)
    data = typer.Typer(no_args_is_help=True, help="Data sets: fetch one, or see where they live.")
    data.command("fetch")(fetch)
    data.command("path")(path)
    app.add_typer(data, name="data", rich_help_panel="On this machine")


def train(
    spec: SpecPath,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray and Redis.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the trained model.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads. Default: all cores for images, one otherwise.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train in this process. Sends nothing anywhere; the result equals that of the service in sync mode.

    Example: [bold]warploom train job.json --local --out trained/[/]
    """
    if not local:
        raise InvalidInput("train runs in this process and wants --local; use `warploom submit` for the service")
    from warploom.plugins import enable_from_environment
    from warploom.spec import JobSpec

    enable_from_environment()
    job = JobSpec.parse(read(spec, overrides))
    from warploom.local import train as run
    from warploom.threads import use_threads

    # Small matrix products lose more by sharing cores than they gain; images go task by task, a core each.
    use_threads(threads or ((os.cpu_count() or 1) if len(job.task.input_shape) == 3 else 1))
    with RunView(console, job.name or job.algorithm.name) as view:
        result = run(job, on_event=None if as_json else view.on_event, out=out)
    if as_json:
        emit_json({"metrics": result.metrics, "path": None if result.path is None else str(result.path)})
        return
    for name, value in sorted(result.metrics.items()):
        console.print(f"{name}: {shown(value)}")
    if result.path is not None:
        console.print(f"written to {result.path}")


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set, for example omniglot.")],
    as_json: AsJson = False,
) -> None:
    """Download a data set and check its files.

    Example: [bold]warploom data fetch omniglot[/]
    """
    from warploom.tasks import data

    where = data.fetch(name)
    emit_json({"name": name, "path": str(where)}) if as_json else typer.echo(f"{name} is in {where}")


def path(as_json: AsJson = False) -> None:
    """Say where data sets are looked for.

    Example: [bold]warploom data path[/]
    """
    from warploom.tasks import data

    where = str(data.data_root())
    emit_json({"path": where}) if as_json else typer.echo(where)
