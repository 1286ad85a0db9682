"""What every actor of a job is given, and what it makes of it in its own process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from service.checkpoints import CheckpointStore
from service.connection import Connections, connect
from service.events import EventLog
from service.jobs import JobStore
from service.models import ModelStore
from service.replay import RedisReplay
from service.settings import Settings
from warploom.plan import plan_of
from warploom.spec import JobSpec

UNIT_LEASE_S = 10.0


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
        self.spec = JobSpec.parse(assignment.spec)
        self.connections: Connections = connect(self.settings)
        self.jobs = JobStore(self.connections)
        self.events = EventLog(self.connections)
        self.models = ModelStore(self.connections)
        self.checkpoints = CheckpointStore.of(self.settings, assignment.job_id, generation=assignment.generation)
        self.plan = plan_of(self.spec, lease_s=UNIT_LEASE_S)
        self.replay = RedisReplay(self.connections, assignment.job_id, assignment.generation, self.plan)

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """Add an event to the job's history; numbers that JSON has no word for become null."""
        clean = {key: None if _unspeakable(value) else value for key, value in data.items()}
        self.events.append(self.assignment.job_id, kind, clean, generation=self.assignment.generation)


def shipped(settings: Settings) -> dict[str, Any]:
    """Settings as plain values for another process, without the API key, which no actor needs."""
    return settings.model_dump(mode="json", exclude={"api_key"})


def _unspeakable(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
