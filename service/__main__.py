"""`python -m service up`: the whole service on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from service.observability import configure_logging
from service.settings import Settings
from service.stack import StackOptions, up
from warploom.errors import WarploomError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: default: those of the process.

    Returns:
        The exit code: 0 after an orderly end, 1 when something is wrong.
    """
    try:
        settings = Settings()
        options = _options(arguments, settings)
        configure_logging(settings)
        up(options)
    except WarploomError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    return 0


def _options(arguments: list[str] | None, settings: Settings) -> StackOptions:
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("up", help="start everything and keep it running")
    command.add_argument("--home", type=Path, default=settings.home, help="directory for all data")
    command.add_argument("--host", default=settings.api_host, help="address of the API")
    command.add_argument("--port", type=int, default=settings.api_port, help="port of the API; 0 finds a free one")
    command.add_argument("--rollout-cpus", type=int, help="rollouts that run at once; default: cores, at least 16")
    command.add_argument("--adapters", type=int, help="adapter actors")
    command.add_argument("--replay-shards", type=int, default=1, help="replay servers that share the work")
    command.add_argument("--ready-file", type=Path, help="file to write once the API answers")
    command.add_argument("--verbose", action="store_true", help="logs of all parts to this terminal")
    return StackOptions(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
