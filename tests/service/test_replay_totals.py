"""Sums over the buffers of running jobs."""

from __future__ import annotations

from service.connection import Connections
from service.jobs import JobStore
from service.replay import RedisReplay
from service.replay_totals import totals
from warploom.replay import Chunk, ReplayPlan
from warploom.spec import JobSpec


def test_running_jobs_are_summed_and_ended_ones_left_out(
    connections: Connections, jobs: JobStore, spec: JobSpec
) -> None:
    plan = ReplayPlan(mode="async", units_per_round=1, rounds=9, max_bytes=1000)
    assert set(totals(connections).values()) == {0.0}
    for size in (10, 20):
        jobs.create(spec)
        claim = jobs.claim("supervisor", 60)
        assert claim
        replay = RedisReplay(connections, claim.job.id, claim.generation, plan)
        replay.reset(0)
        replay.publish(0, b"meta")
        replay.claim("w")
        replay.append(Chunk(0, 0, 1, 0, b"x" * size))
        replay.wait("learner", 0.1)
        replay.wait("learner", 0.02)
    found = totals(connections)
    assert (found["units"], found["bytes"], found["inserted"], found["sampled"]) == (2, 30, 2, 0)
    assert found["blocked_learner_s"] >= 0.04
    assert found["blocked_rollouts_s"] == 0
    jobs.finish(claim.job.id, claim.generation, "succeeded")
    assert totals(connections)["units"] == 1
