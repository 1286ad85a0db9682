"""A job's plan of its replay buffer. No torch here: the API reads it."""

from __future__ import annotations

from warploom.replay import ReplayPlan
from warploom.samplers import Sampler
from warploom.spec import JobSpec


def plan_of(spec: JobSpec, *, lease_s: float = 30.0) -> ReplayPlan:
    """The replay plan of a job.

    Raises:
        InvalidInput: settings in which rollouts and learner would wait for each other for ever.
    """
    most = spec.replay.max_trajectories
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
        sampler=Sampler(
            name=spec.replay.sampler,
            priority_exponent=spec.replay.priority_exponent,
            importance_exponent=spec.replay.importance_exponent,
            uniform_share=spec.replay.uniform_share,
            half_life=spec.replay.half_life,
        ),
        max_times_sampled=spec.replay.max_times_sampled,
        max_units=None if most is None else most // spec.training.unit,
        when_full=spec.replay.when_full,
    )
