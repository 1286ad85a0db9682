"""A job that gets nowhere is noticed; one that gets on slowly, or waits for Redis, is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore
from service.settings import Settings
from tests.support.clock import FakeClock
from warploom.errors import OutOfMemory, Stalled, TrainingFailed, WarploomError
from warploom.replay import Chunk
from warploom.spec import JobSpec
from workers.context import Assignment, replay_of, shipped
from workers.failures import failure_of
from workers.stall import StallWatch

MOST_S = 100.0
SPEC = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp", "training": {"mode": "async"}})


class Watched:
    """A running job whose time the test moves."""

    def __init__(self, connections: Connections, settings: Settings) -> None:
        jobs = JobStore(connections)
        self.job = jobs.create(SPEC)
        assert jobs.claim("test", 1000.0)
        self.events = EventLog(connections)
        self.replay = replay_of(connections, Assignment(self.job.id, "x", 1, SPEC.to_json(), shipped(settings)))
        self.replay.reset(0)
        self.replay.publish(0, b"meta")
        self.clock = FakeClock()
        self.watch = StallWatch(self.job.id, self.events, self.replay, MOST_S, self.clock)

    def stalls_after(self, seconds: float) -> bool:
        try:
            for _ in range(int(seconds / 10)):
                self.clock.advance(10)
                self.watch.check()
        except Stalled as error:
            assert error.field == "/training/max_stall_s"
            return True
        return False


@pytest.fixture
def watched(connections: Connections, redis_settings: Settings) -> Iterator[Watched]:
    yield Watched(connections, redis_settings)


def test_nothing_for_too_long_is_a_stall(watched: Watched) -> None:
    assert not watched.stalls_after(100)
    assert watched.stalls_after(30)


def test_an_event_or_a_unit_is_progress(watched: Watched) -> None:
    assert not watched.stalls_after(90)
    watched.events.append(watched.job.id, "evaluation", {}, generation=1)
    assert not watched.stalls_after(90)
    claim = watched.replay.claim("me")
    assert claim
    watched.replay.append(Chunk(unit=claim.unit, part=0, parts=1, version=0, blob=b"x"))
    assert not watched.stalls_after(90)
    assert watched.stalls_after(30)


def test_an_outage_and_a_watcher_that_stood_still_do_not_count(watched: Watched) -> None:
    assert not watched.stalls_after(90)
    watched.watch.forget()
    assert not watched.stalls_after(90)
    watched.clock.advance(1000)
    watched.watch.check()
    assert not watched.stalls_after(90)


@pytest.mark.parametrize(
    ("error", "category", "retryable"),
    [
        (TrainingFailed("NaN"), "user", False),
        (Stalled("hangs"), "user", True),
        (OutOfMemory("large"), "capacity", True),
        (WarploomError("ours"), "system", True),
    ],
)
def test_a_failure_says_whose_fault_it_is(error: WarploomError, category: str, retryable: bool) -> None:
    failure = failure_of(error)
    assert (failure.code, failure.category, failure.retryable) == (error.code, category, retryable)
