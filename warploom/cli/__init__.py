"""The command line, `warploom`. Nothing heavy is loaded until a command needs it."""

from __future__ import annotations

from warploom.cli.app import app, main

__all__ = ["app", "main"]
