"""What happened since the service was first started, for monitoring: counters that only grow."""

from __future__ import annotations

from typing import Literal

from service import keys
from service.connection import Connections

Name = Literal["gradients_dropped"]
NAMES: dict[Name, str] = {"gradients_dropped": "Meta-gradients of jobs that were not finite and were dropped"}


class Counters:
    """Counters on the state server.

    Args:
        connections: both Redis roles.
    """

    def __init__(self, connections: Connections) -> None:
        self._state = connections.state

    def add(self, name: Name, by: int = 1) -> None:
        """Count. A caller that is told `Unavailable` may or may not have been counted."""
        self._state.execute_command("HINCRBY", keys.COUNTERS, name, by)

    def read(self) -> dict[Name, int]:
        """All of them."""
        found = self._state.execute_command("HMGET", keys.COUNTERS, *NAMES)
        return {name: int(value or 0) for name, value in zip(NAMES, found, strict=True)}
