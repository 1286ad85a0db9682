"""One job whose learner and rollout are threads of the test, without Ray."""

from __future__ import annotations

import threading
from typing import Any

from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore
from service.settings import Settings
from tests.support.waiting import wait_until
from warploom.spec import JobSpec
from workers.context import Assignment, shipped
from workers.learner import LearnerWorker
from workers.rollout import RolloutWorker


def sine(**sections: Any) -> JobSpec:
    """A small job; a section's members replace its own."""
    document: dict[str, Any] = {
        "algorithm": {"name": "warpgrad", "inner_lr": 0.01, "inner_steps": 4, "points_per_update": 8},
        "task": "sinusoid",
        "model": {"name": "warp_mlp", "hidden": [8]},
        "training": {"rounds": 40, "meta_batch": 4, "unit": 2, "rollouts": 1, "checkpoint_every": 2},
        "resources": {"learner_threads": 1},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section}
    return JobSpec.parse(document)


class Running:
    """One job, its learner and its rollout, from its start on.

    Args:
        connections, settings: the service.
        spec: the job.
    """

    def __init__(self, connections: Connections, settings: Settings, spec: JobSpec) -> None:
        jobs = JobStore(connections)
        job = jobs.create(spec)
        claim = jobs.claim("test", 600)
        assert claim
        assignment = Assignment(
            job_id=job.id, name=job.name, generation=claim.generation, spec=job.spec, settings=shipped(settings)
        )
        self.id, self.connections, self.settings, self.jobs = job.id, connections, settings, jobs
        workers = (LearnerWorker(assignment), RolloutWorker(assignment, "rollout-0"))
        self.threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in self.threads:
            thread.start()

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What its history says of a kind."""
        events = EventLog(self.connections).list(self.id, limit=10_000)
        return [event.data for event in events if event.kind == kind]

    def end(self) -> None:
        """Wait until both are done."""
        wait_until(lambda: not any(thread.is_alive() for thread in self.threads), 300, what="the end of the job")
