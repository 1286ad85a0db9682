"""The command tree and how an error becomes one line."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from warploom import __version__
from warploom.cli import (
    adaptations,
    adapting,
    catalog,
    demo,
    history,
    jobs,
    keys,
    local,
    models,
    records,
    reproduce,
    service,
    stack,
    sweeps,
    webhooks,
)
from warploom.cli.output import Session, errors, one_line
from warploom.errors import WarploomError


class Commands(TyperGroup):
    """A command group in which an error that was raised on purpose is one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except WarploomError as error:
            errors.print(f"[bold red]error:[/] {one_line(error)}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"warploom {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="Address of the service. Default: WARPLOOM_URL, then the local service's own file."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - the callback acts on it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Warploom: distributed meta-training, and few-shot adaptation as a service.

    Start a service with [bold]warploom up[/], see it work with [bold]warploom demo[/], send it a job with
    [bold]warploom submit[/]. The API key is read from WARPLOOM_API_KEY or from the local service's own file.
    """
    ctx.obj = Session(url)


for module in (
    stack,
    jobs,
    records,
    history,
    models,
    adapting,
    adaptations,
    sweeps,
    local,
    reproduce,
    catalog,
    demo,
    service,
    keys,
    webhooks,
):
    module.register(app)


def main() -> None:
    """Entry point of the `warploom` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
