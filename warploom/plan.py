"""A job's plan of its replay buffer. No torch here: the API reads it."""

from __future__ import annotations

from warploom.replay import ReplayPlan
from warploom.spec import JobSpec


def plan_of(spec: JobSpec, *, lease_s: float = 30.0) -> ReplayPlan:
    """The replay plan of a job.

    Raises:
        InvalidInput: settings in which rollouts and learner would wait for each other for ever.
    """
    return ReplayPlan(
        mode=spec.training.mode,
        units_per_round=spec.training.units_per_round,
        rounds=spec.training.rounds,
        max_bytes=spec.replay.max_bytes,
        samples_per_insert=spec.replay.samples_per_insert,
        min_units=-(-spec.replay.min_trajectories // spec.training.unit),
        ahead=spec.replay.ahead,
        max_staleness=spec.replay.max_staleness,
        lease_s=lease_s,
        max_rejections=spec.replay.max_rejections,
    )
