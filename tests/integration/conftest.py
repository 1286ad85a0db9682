"""One Ray for all of these tests; for each a supervisor of its own over empty Redis servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from service.checkpoints import CheckpointStore
from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore
from service.models import ModelStore
from service.settings import Settings
from service.sweeps import SweepStore
from tests.support.waiting import wait_until
from warploom.codec import unpack_model
from warploom.records import FINAL_STATES, Job
from warploom.spec import JobSpec
from warploom.types import Tensors
from workers import placement
from workers.supervisor import Supervisor

JOB_S = 200.0


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of this test session; among its data is a file whose reading never ends."""
    data = tmp_path_factory.mktemp("data")
    os.mkfifo(data / "endless.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARPLOOM_DATA", str(data))
        placement.start_ray(None)
        yield
        placement.stop_ray()


@dataclass
class Service:
    """The stores, and supervisors that can be started and stopped."""

    connections: Connections
    settings: Settings
    stopping: threading.Event
    thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.jobs, self.events = JobStore(self.connections), EventLog(self.connections)
        self.models, self.sweeps = ModelStore(self.connections), SweepStore(self.connections)

    def start(self) -> None:
        self.stopping = threading.Event()
        supervisor = Supervisor(self.connections, self.settings, self.stopping)
        self.thread = threading.Thread(target=supervisor.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread is not None:
            self.thread.join(60)
            assert not self.thread.is_alive()

    def submit(self, document: dict[str, Any]) -> str:
        return self.jobs.create(JobSpec.parse(document)).id

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.events.list(job_id, limit=10_000)]

    def last(self, job_id: str, kind: str) -> dict[str, Any]:
        return [event.data for event in self.events.list(job_id, limit=10_000) if event.kind == kind][-1]

    def round(self, job_id: str) -> int:
        rounds = [e.data["meta_step"] for e in self.events.list(job_id, limit=10_000) if e.kind == "round"]
        return rounds[-1] if rounds else 0

    def wait(self, job_id: str, until: Callable[[Job], bool] = lambda job: job.state in FINAL_STATES) -> Job:
        wait_until(lambda: until(self.jobs.get(job_id)), JOB_S, what=f"{job_id}: {self.jobs.get(job_id)}")
        return self.jobs.get(job_id)

    def weights(self, job_id: str) -> Tensors:
        job = self.wait(job_id)
        assert job.state == "succeeded", job.error
        assert job.model is not None
        _, meta = unpack_model(self.models.blob(job.model, 1))
        return meta.params

    def checkpoints(self, job_id: str) -> CheckpointStore:
        return CheckpointStore.of(self.settings, job_id)


@pytest.fixture
def service(ray_cluster: None, connections: Connections, redis_settings: Settings) -> Iterator[Service]:
    """A running supervisor without adapters; quick heartbeats and leases."""
    settings = redis_settings.model_copy(update={"adapters": 0, "heartbeat_s": 0.3, "lease_s": 20.0})
    running = Service(connections, settings, threading.Event())
    running.start()
    yield running
    running.stop()
