"""Two real supervisor processes on one Redis: one owner for each job, and a checkpoint from one that is asked to go."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from service.checkpoints import CheckpointStore
from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore
from service.processes import Child, spawn
from service.settings import Settings
from tests.chaos.driver import Plan, document, wrong_versions
from tests.support.waiting import wait_until
from warploom.spec import JobSpec

SLOW_S = 600.0
ENDLESS = Plan(rounds=100_000)


class Pair:
    """Two supervisors, each with a Ray of its own and one job at a time."""

    def __init__(self, connections: Connections, settings: Settings, stack: ExitStack) -> None:
        self.jobs, self.events, self.settings = JobStore(connections), EventLog(connections), settings
        env = {
            **os.environ,
            "WARPLOOM_STATE_URL": settings.state_url,
            "WARPLOOM_REPLAY_URL": settings.replay_url,
            "WARPLOOM_HOME": str(settings.home),
            "WARPLOOM_ADAPTERS": "0",
            "WARPLOOM_JOBS_AT_ONCE": "1",
        }
        settings.home.mkdir()
        self._env = env
        self.supervisors = [self._start(number) for number in range(2)]
        stack.callback(self.stop)

    def _start(self, number: int) -> Child:
        log = self.settings.home / f"supervisor-{number}.log"
        return spawn((sys.executable, "-m", "workers"), env=self._env, log=log)

    def stop(self) -> None:
        for child in self.supervisors:
            child.stop(30.0)

    def tend(self) -> None:
        """Start again whose Ray was not up in time, which happens on busy machines."""
        for number, child in enumerate(self.supervisors):
            if child.code() == 1:
                self.supervisors[number] = self._start(number)

    def submit(self) -> str:
        spec = document(ENDLESS, 0)
        spec["training"]["checkpoint_every"] = 100_000
        return self.jobs.create(JobSpec.parse(spec)).id

    def rounds(self, job_id: str) -> list[int]:
        return [e.data["meta_step"] for e in self.events.list(job_id, limit=10_000) if e.kind == "round"]

    def owners(self, job_id: str) -> list[str]:
        return [e.data["owner"] for e in self.events.list(job_id, limit=10_000) if "owner" in e.data]

    def wait(self, what: str, true: Callable[[], object]) -> None:
        wait_until(lambda: self.tend() or true(), SLOW_S, what=what)


@pytest.fixture
def pair(connections: Connections, redis_settings: Settings) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(connections, redis_settings, stack)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_one_owner_each_and_a_good_leave(pair: Pair) -> None:
    first, second = pair.submit(), pair.submit()
    pair.wait("both jobs under way", lambda: pair.rounds(first) and pair.rounds(second))
    assert len(pair.owners(first)) == len(pair.owners(second)) == 1
    assert pair.owners(first) != pair.owners(second)

    leaver = next(child for child in pair.supervisors if _owns(pair, child, first))
    leaver.stop(60.0)
    assert leaver.code() == 0
    job = pair.jobs.get(first)
    assert (job.state, job.retries, job.generation) == ("queued", 0, 1)
    kept = CheckpointStore.of(pair.settings, first).latest()
    assert kept is not None
    assert kept.round == pair.rounds(first)[-1], "SIGTERM lets the round end and saves it"

    pair.jobs.cancel(second)
    pair.wait("the other goes on with it", lambda: len(pair.rounds(first)) >= kept.round + 2)
    assert pair.owners(first)[1:] == pair.owners(second)
    assert wrong_versions(pair.events.list(first, limit=10_000), kept.round + 2) == []
    assert pair.rounds(first).count(kept.round + 1) == 1
    assert pair.jobs.cancel(first).state == "cancelling"
    pair.wait("both cancelled", lambda: all(pair.jobs.get(job).state == "cancelled" for job in (first, second)))


def _owns(pair: Pair, child: Child, job_id: str) -> bool:
    number = pair.supervisors.index(child)
    return job_id in (pair.settings.home / f"supervisor-{number}.log").read_text()
