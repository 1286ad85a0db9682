"""Meta-gradients that are not finite are counted over all jobs."""

from __future__ import annotations

import threading

import pytest

from service.connection import Connections
from service.counters import Counters
from service.jobs import JobStore
from service.settings import Settings
from warploom.errors import TrainingFailed
from warploom.spec import JobSpec
from warploom.training import Alone
from workers.context import Assignment, JobContext, shipped
from workers.learner import learn
from workers.rollout import RolloutWorker

pytestmark = pytest.mark.timeout(120)


def test_a_job_that_diverges_counts_what_it_dropped_to_the_last(
    connections: Connections, redis_settings: Settings
) -> None:
    spec = JobSpec.parse(
        {
            "algorithm": {"name": "maml", "inner_lr": 100.0, "inner_steps": 40},
            "task": "sinusoid",
            "model": {"name": "mlp", "hidden": [8]},
            "training": {"rounds": 9, "meta_batch": 2, "unit": 2, "max_bad_updates": 3},
        }
    )
    jobs = JobStore(connections)
    job = jobs.create(spec)
    claim = jobs.claim("test", 600)
    assert claim
    assignment = Assignment(job.id, job.name, claim.generation, job.spec, shipped(redis_settings))
    rollout = threading.Thread(target=RolloutWorker(assignment, "rollout-0").run, daemon=True)
    rollout.start()
    context = JobContext(assignment)
    with pytest.raises(TrainingFailed, match="3 meta-gradients in a row"):
        learn(context, Alone())
    assert Counters(connections).read() == {"gradients_dropped": 3}
    context.replay.publish(9, b"")  # the last version: the rollout is done
    rollout.join()
