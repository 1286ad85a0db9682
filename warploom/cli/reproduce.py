"""The literature's experiments from the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from warploom.cli.output import AsJson, console, emit_json, table


class SizeName(StrEnum):
    """The sizes of an experiment."""

    tiny = "tiny"
    cpu = "cpu"
    paper = "paper"


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command(rich_help_panel="Training")(reproduce)


def reproduce(
    name: Annotated[
        str, typer.Argument(metavar="[list | NAME]", help="An experiment, or `list` to see them.")
    ] = "list",
    size: Annotated[
        SizeName, typer.Option(help="tiny: seconds; cpu: two cores, at most half an hour; paper: the paper's setting.")
    ] = SizeName.cpu,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds, from 0 on. Default: by size.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results, figures and finished runs.")] = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Run an experiment of the literature here, and compare with the paper's numbers.

    Writes NAME.md, NAME.json and figures. Finished runs are kept, so that the same command goes on after an
    interruption.

    Example: [bold]warploom reproduce omniglot-few-shot --size cpu --seeds 3[/]
    """
    from warploom.reproduce.table import EXPERIMENTS, experiment

    if name == "list":
        rows = [(key, experiment(key).title, experiment(key).source) for key in EXPERIMENTS]
        if as_json:
            emit_json([{"name": key, "title": title, "source": source} for key, title, source in rows])
        else:
            console.print(table(["name", "what", "source"], rows))
        return
    from warploom.reproduce.report import write

    chosen = experiment(name)
    wanted = seeds or chosen.default_seeds(size.value)

    def say(line: str) -> None:
        if not as_json:
            console.print(line, highlight=False)

    outcome = chosen.run(size.value, wanted, out, say)
    path = write(outcome, list(chosen.measures(size.value)), out)
    if as_json:
        emit_json({"report": str(path), "holds": {verdict.text: verdict.holds for verdict in outcome.verdicts}})
        return
    for verdict in outcome.verdicts:
        console.print(f"{'holds' if verdict.holds else '[red]does not hold[/]'}: {verdict.text}")
    console.print(f"written to {path}")
