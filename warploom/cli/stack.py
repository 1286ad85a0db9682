"""The service on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from warploom.cli.embedded import require_service


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command(rich_help_panel="On this machine")(up)


def up(
    home: Annotated[Path | None, typer.Option(help="Folder for its data. Default: ~/.warploom.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: this machine only.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = None,
    rollout_cpus: Annotated[
        int | None, typer.Option(min=1, help="Rollouts that run at once; default: cores, at least 16.")
    ] = None,
    adapters: Annotated[int | None, typer.Option(help="Processes that answer adaptation requests.")] = None,
    replay_shards: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="Redis servers that share trajectories and adaptations; default: 1."),
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Write the address here once it is ready.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of all parts here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Log in JSON.")] = False,
) -> None:
    """Start Redis, Ray, the workers and the API on this machine; Ctrl-C stops all of them.

    Example: [bold]warploom up[/], then in another window [bold]warploom submit job.json --watch[/]
    """
    require_service()
    options: dict[str, object] = {"--home": home, "--host": host, "--port": port, "--ready-file": ready_file}
    options |= {"--rollout-cpus": rollout_cpus, "--adapters": adapters, "--replay-shards": replay_shards}
    command = [sys.executable, "-m", "service", "up", *(["--verbose"] if verbose else [])]
    for name, value in options.items():
        if value is not None:
            command += [name, str(value)]
    environment = {**os.environ, "WARPLOOM_LOG_JSON": "1"} if as_json else dict(os.environ)
    # In place of this process, so that signals reach the service itself.
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own module
