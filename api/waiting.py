"""What a queued job waits for."""

from __future__ import annotations

from api.state import Services
from warploom.records import QUEUED, Job


def placed(services: Services, job: Job) -> Job:
    """The job, with its place in the queue and the reason to wait while it is queued."""
    if job.state != QUEUED:
        return job
    position = services.jobs.position(job.id)
    if position is None:  # claimed just now
        return services.jobs.get(job.id)
    reason = _reason(services, position)
    return job.model_copy(update={"queue_position": position, "queue_reason": reason})


def _reason(services: Services, position: int) -> str:
    supervisors = services.fleet.alive().get("supervisor", 0)
    if not supervisors:
        return "no supervisor is alive to run it"
    held = services.jobs.load()["held"]
    ahead = f"{position - 1} queued before it, " if position > 1 else ""
    return f"{ahead}{held} running on {supervisors} {'supervisor' if supervisors == 1 else 'supervisors'}"
