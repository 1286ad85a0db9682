"""What every actor of a job is given, and what it makes of it in its own process."""

from __future__ import annotations

import math
import platform
import time
from collections import deque
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import structlog

from service.checkpoints import CheckpointStore
from service.connection import Connections, connect
from service.events import EventLog
from service.jobs import JobStore
from service.models import ModelStore
from service.settings import Settings
from service.sharded_replay import Tell, replay_on
from warploom import __version__, plugins
from warploom.errors import Unavailable
from warploom.plan import plan_of
from warploom.replay import Replay
from warploom.spec import JobSpec
from workers.patience import PATIENCE_S

log = structlog.get_logger()
UNIT_LEASE_S = 10.0
SILENT_S = 1.0
UNTOLD_MOST = 10_000


@dataclass(frozen=True)
class Assignment:
    """A job's spec and generation, and how to reach the service; plain values, so that it travels to any node."""

    job_id: str
    name: str
    generation: int
    spec: dict[str, Any]
    settings: dict[str, Any]


class JobContext:
    """The stores of one job, as its current generation sees them."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.settings = Settings.model_validate(assignment.settings)
        plugins.enable(self.settings.plugins)
        self.spec = JobSpec.parse(assignment.spec)
        self.connections: Connections = connect(self.settings, wait_s=PATIENCE_S)
        self.jobs = JobStore(self.connections)
        self.events = EventLog(self.connections)
        self.models = ModelStore(self.connections)
        self.checkpoints = CheckpointStore.of(self.settings, assignment.job_id, generation=assignment.generation)
        self.replay = replay_of(self.connections, assignment, self.report)
        self._untold: deque[tuple[str, dict[str, Any]]] = deque(maxlen=UNTOLD_MOST)
        self._silent_until = 0.0

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """Add an event to the job's history; numbers that JSON has no word for become null.

        While the state server is away events are kept, in order, and told later.

        Raises:
            Fenced: a newer generation owns the job.
        """
        self._untold.append((kind, {key: None if _unspeakable(value) else value for key, value in data.items()}))
        if time.monotonic() >= self._silent_until:
            self._tell()

    def note_versions(self) -> None:
        """Tell the job's record what runs it; while the state server is away, the next run does."""
        owner = self.assignment
        # Ours from the code: an image that only copies it has no metadata of the package.
        found = {"warploom": __version__, **{name: metadata.version(name) for name in ("torch", "ray")}}
        try:
            self.jobs.annotate(owner.job_id, owner.generation, versions={"python": platform.python_version(), **found})
        except Unavailable as error:
            log.warning("versions were not noted", error=error.message)

    def tell_all(self) -> None:
        """Tell what is still untold, and wait for the state server if need be.

        Raises:
            Unavailable: it does not come back.
        """
        deadline = time.monotonic() + PATIENCE_S
        while self._untold and time.monotonic() < deadline:
            if not self._tell():
                time.sleep(SILENT_S)
        if self._untold:
            raise Unavailable(f"{len(self._untold)} events could not be stored")

    def _tell(self) -> bool:
        owner = self.assignment
        try:
            while self._untold:
                self.events.append(owner.job_id, *self._untold[0], generation=owner.generation)
                self._untold.popleft()
        except Unavailable as error:
            log.warning("events wait for redis", error=error.message, waiting=len(self._untold))
            self._silent_until = time.monotonic() + SILENT_S
            return False
        return True


def replay_of(connections: Connections, assignment: Assignment, tell: Tell | None = None) -> Replay:
    """The buffer of a job, as one of its generations sees it; `tell` is told of servers that are lost."""
    plan = plan_of(JobSpec.parse(assignment.spec), lease_s=UNIT_LEASE_S)
    return replay_on(connections, assignment.job_id, assignment.generation, plan, tell=tell)


def shipped(settings: Settings) -> dict[str, Any]:
    """Settings as plain values for another process, without the API key, which no actor needs."""
    return settings.model_dump(mode="json", exclude={"api_key"})


def _unspeakable(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
