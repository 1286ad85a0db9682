"""Sweeps live like jobs, and have trials."""

from __future__ import annotations

import pytest

from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore, ran_s
from service.sweeps import SweepStore
from tests.support.clock import FakeClock
from warploom.errors import Conflict, Fenced, NotFound
from warploom.records import Trial
from warploom.spec import JobSpec, SweepSpec


@pytest.fixture
def sweeps(connections: Connections, clock: FakeClock) -> SweepStore:
    return SweepStore(connections, clock=clock)


@pytest.fixture
def sweep_spec(spec: JobSpec) -> SweepSpec:
    return SweepSpec.model_validate(
        {"job": spec, "space": {"algorithm.inner_lr": {"type": "loguniform", "low": 0.01, "high": 1.0}}}
    )


def test_a_sweep_from_start_to_end(sweeps: SweepStore, connections: Connections, sweep_spec: SweepSpec) -> None:
    sweep = sweeps.create(sweep_spec)
    assert sweep.id.startswith("sweep_") and SweepSpec.model_validate(sweep.spec) == sweep_spec
    claim = sweeps.claim("me", 10)
    assert claim and claim.generation == 1
    for best in (0.5, 0.25):
        trial = Trial(id="1", state="running", parameters={"algorithm.inner_lr": 0.1}, best=best)
        sweeps.put_trial(sweep.id, 1, trial)
    sweeps.put_trial(sweep.id, 1, Trial(id="0", state="succeeded", parameters={}))
    assert [(trial.id, trial.best) for trial in sweeps.get(sweep.id).trials] == [("0", None), ("1", 0.25)]
    assert sweeps.heartbeat(sweep.id, 1, 10) == sweeps.state(sweep.id) == "running"
    done = sweeps.finish(sweep.id, 1, "succeeded", model="m", best_trial="1")
    assert (done.state, done.model, done.best_trial, len(done.trials)) == ("succeeded", "m", "1", 2)
    history = EventLog(connections).list(sweep.id)
    assert [event.data["state"] for event in history if event.kind == "state"] == ["queued", "running", "succeeded"]
    told = [(event.data["trial"], event.data["best"]) for event in history if event.kind == "trial"]
    assert told == [("1", 0.5), ("1", 0.25), ("0", None)]
    with pytest.raises(Conflict):
        sweeps.cancel(sweep.id)


def test_a_replaced_worker_writes_no_trial(sweeps: SweepStore, clock: FakeClock, sweep_spec: SweepSpec) -> None:
    sweep = sweeps.create(sweep_spec)
    sweeps.claim("first", 10)
    clock.advance(11)
    sweeps.claim("second", 10)
    with pytest.raises(Fenced):
        sweeps.put_trial(sweep.id, 1, Trial(id="0", state="running", parameters={}))
    assert sweeps.get(sweep.id).trials == []
    assert sweeps.release(sweep.id, 2).state == "queued"
    assert sweeps.cancel(sweep.id).state == "cancelled"


def test_jobs_and_sweeps_do_not_mix(sweeps: SweepStore, jobs: JobStore, spec: JobSpec, sweep_spec: SweepSpec) -> None:
    job, sweep = jobs.create(spec), sweeps.create(sweep_spec)
    assert [found.id for found in jobs.list().data] == [job.id]
    assert [found.id for found in sweeps.list().data] == [sweep.id]
    with pytest.raises(NotFound):
        sweeps.get(job.id)
    with pytest.raises(NotFound):
        sweeps.put_trial("sweep_00000000000000000000", 1, Trial(id="0", state="running", parameters={}))
    claim = jobs.claim("me", 10)
    assert claim and claim.job.id == job.id and jobs.claim("me", 10) is None


def test_a_sweep_rests_and_goes_on(sweeps: SweepStore, clock: FakeClock, sweep_spec: SweepSpec) -> None:
    sweep = sweeps.create(sweep_spec)
    assert sweeps.pause(sweep.id).state == "paused" and sweeps.claim("me", 10) is None
    assert sweeps.resume(sweep.id).state == "queued"
    assert sweeps.claim("me", 10)
    sweeps.put_trial(sweep.id, 1, Trial(id="00000", state="paused", parameters={}))
    clock.advance(4)
    assert sweeps.pause(sweep.id).state == sweeps.heartbeat(sweep.id, 1, 10) == "pausing"
    clock.advance(1)
    rested = sweeps.release(sweep.id, 1)
    assert (rested.state, ran_s(rested), rested.trials[0].state) == ("paused", 5.0, "paused")
    clock.advance(100)
    sweeps.resume(sweep.id)
    claim = sweeps.claim("another", 10)
    assert claim and (claim.generation, ran_s(claim.sweep)) == (2, 5.0)
    assert [step.state for step in claim.sweep.transitions if step.phase is None][-3:] == [
        "paused",
        "queued",
        "running",
    ]


@pytest.mark.parametrize("before", ["queued", "paused"])
def test_what_nobody_runs_is_stopped_by_the_next_worker(sweeps: SweepStore, sweep_spec: SweepSpec, before: str) -> None:
    sweep = sweeps.create(sweep_spec)
    if before == "paused":
        sweeps.pause(sweep.id)
    assert sweeps.stop(sweep.id).state == sweeps.stop(sweep.id).state == "stopping"
    claim = sweeps.claim("me", 10)
    assert claim and (claim.sweep.id, claim.sweep.state) == (sweep.id, "stopping")
    assert sweeps.claim("another", 10) is None
    for refused in (sweeps.pause, sweeps.resume):
        with pytest.raises(Conflict):
            refused(sweep.id)
    sweeps.put_trial(sweep.id, 1, Trial(id="00000", state="paused", parameters={}))
    done = sweeps.finish(sweep.id, 1, "succeeded", model="m", best_trial="00000")
    assert (done.state, done.trials[0].state) == ("succeeded", "stopped")
    assert sweeps.stop(sweep.id).model == "m", "a repeat changes nothing"
