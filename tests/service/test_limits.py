"""Limits of a key: buckets that fill again, counts that heal."""

from __future__ import annotations

import pytest

from service.connection import Connections
from service.jobs import JobStore
from service.limits import NAMES, Limiter, check_own, defaults, resolved
from service.settings import Settings
from service.tenancy import Caller
from tests.support.clock import FakeClock
from warploom.errors import InvalidInput, RateLimited, TooLarge
from warploom.spec import JobSpec

KEY = "key_" + "a" * 20


def caller(**limits: int) -> Caller:
    return resolved(Settings(), Caller(KEY, limits=limits))


@pytest.fixture
def limiter(connections: Connections, clock: FakeClock) -> Limiter:
    return Limiter(connections, caller(requests_per_minute=6, rows_per_minute=100), clock=clock)


def test_a_bucket_is_emptied_and_fills_again_evenly(limiter: Limiter, clock: FakeClock) -> None:
    for _ in range(6):
        limiter.take(requests_per_minute=1)
    with pytest.raises(RateLimited) as refused:
        limiter.take(requests_per_minute=1)
    assert refused.value.field == "/limits/requests_per_minute" and refused.value.rule == "at most 6 in a minute"
    assert refused.value.retry_after_s == 10
    clock.advance(9.9)
    with pytest.raises(RateLimited):
        limiter.take(requests_per_minute=1)
    clock.advance(0.1)
    limiter.take(requests_per_minute=1)
    clock.advance(1000)
    assert limiter.uses()["requests_per_minute"].used == 0


def test_what_is_refused_takes_nothing_from_any_bucket(limiter: Limiter) -> None:
    limiter.take(rows_per_minute=90)
    with pytest.raises(RateLimited):
        limiter.take(requests_per_minute=1, rows_per_minute=20)
    uses = limiter.uses()
    assert (uses["requests_per_minute"].used, uses["rows_per_minute"].used) == (0, 90)
    assert uses["rows_per_minute"].reset_s == 54
    limiter.take(requests_per_minute=1, rows_per_minute=10)


def test_more_than_a_bucket_holds_is_refused_for_good(limiter: Limiter) -> None:
    with pytest.raises(TooLarge):
        limiter.take(rows_per_minute=101)


def test_a_limit_of_nothing_lets_nothing_through(connections: Connections) -> None:
    with pytest.raises(RateLimited):
        Limiter(connections, caller(requests_per_minute=0)).take(requests_per_minute=1)


def test_keys_have_buckets_of_their_own(limiter: Limiter, connections: Connections, clock: FakeClock) -> None:
    limiter.take(requests_per_minute=6)
    other = resolved(Settings(), Caller("key_" + "b" * 20, limits={"requests_per_minute": 1}))
    others = Limiter(connections, other, clock=clock)
    others.take(requests_per_minute=1)
    for full in (limiter, others):
        with pytest.raises(RateLimited):
            full.take(requests_per_minute=1)


def test_a_key_has_only_so_many_jobs_that_have_not_ended(connections: Connections, spec: JobSpec) -> None:
    ours = caller(jobs=2)
    jobs, everybodys = JobStore(connections, caller=ours), JobStore(connections)
    first = jobs.create(spec, "once")
    jobs.create(spec)
    with pytest.raises(RateLimited) as refused:
        jobs.create(spec)
    assert refused.value.field == "/limits/jobs" and refused.value.value == 2
    assert jobs.create(spec, "once").id == first.id, "a repeat makes nothing and is let in"
    everybodys.create(spec)
    assert Limiter(connections, ours).uses()["jobs"].used == 2
    jobs.cancel(first.id)
    assert Limiter(connections, ours).uses()["jobs"].used == 1
    jobs.create(spec)


def test_limits_are_the_keys_own_or_the_services() -> None:
    settings = Settings(max_body_bytes=5000, limit_jobs=7)
    found = resolved(settings, Caller(KEY, limits={"body_bytes": 9999, "sweep_trials": 3})).limits
    assert set(found) == set(NAMES) == set(defaults(settings))
    assert (found["body_bytes"], found["sweep_trials"], found["jobs"]) == (5000, 3, 7)


@pytest.mark.parametrize("limits", [{"job": 1}, {"jobs": -1}, {"jobs": 2**60}])
def test_odd_limits_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        check_own(limits)
