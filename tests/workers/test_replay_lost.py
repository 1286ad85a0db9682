"""Learner and rollout of one job as threads, without Ray, while their replay server loses its memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from service.checkpoints import CheckpointStore
from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore
from service.settings import Settings
from tests.support.waiting import wait_until
from warploom.local import train
from warploom.spec import JobSpec
from warploom.training import unpack_state
from workers.context import Assignment, shipped
from workers.learner import LearnerWorker
from workers.rollout import RolloutWorker

pytestmark = pytest.mark.timeout(400)


def sine(**sections: Any) -> JobSpec:
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


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Workers set how many threads torch uses in their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Running:
    """One job, its learner and its rollout."""

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
        events = EventLog(self.connections).list(self.id, limit=10_000)
        return [event.data for event in events if event.kind == kind]

    def end(self) -> None:
        wait_until(lambda: not any(thread.is_alive() for thread in self.threads), 300, what="the end of the job")


def test_a_sync_job_does_its_round_again_and_ends_the_same(connections: Connections, redis_settings: Settings) -> None:
    spec = sine()
    running = Running(connections, redis_settings, spec)
    wait_until(lambda: len(running.told("round")) >= 3, 120)
    connections.replay.flushall()
    running.end()
    [waiting] = running.told("waiting")
    assert waiting["for"] == "replay"
    assert "holds no buffer" in waiting["message"]
    assert running.told("resumed")[0]["seconds"] > 0
    assert running.jobs.get(running.id).progress.waiting is None
    last = running.told("round")[-1]
    assert last["samples_per_insert"] > 0
    assert last["blocked_learner_s"] > 0
    checkpoint = CheckpointStore.of(redis_settings, running.id).latest()
    assert checkpoint
    state = unpack_state(checkpoint.blobs)
    assert state.meta.version == 40
    expected = train(spec).meta.params
    assert all(torch.equal(state.meta.params[name], value) for name, value in expected.items())
    assert [data["meta_step"] for data in running.told("round")] == list(range(1, 41)), "no round is missing or doubled"


def test_an_async_job_gets_its_buffer_back(connections: Connections, redis_settings: Settings) -> None:
    spec = sine(training={"mode": "async"}, replay={"checkpoint": True, "samples_per_insert": 2.0, "ahead": 4})
    running = Running(connections, redis_settings, spec)
    wait_until(lambda: len(running.told("checkpoint")) >= 2, 120)
    connections.replay.flushall()
    running.end()
    assert running.told("replay_restored")[0]["units"] >= 0
    assert running.told("round")[-1]["meta_step"] == 40
