"""The life of a job: queue, leases, generations, cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service import keys
from service.connection import Connections
from service.events import EventLog
from service.ids import new_id
from service.jobs import JobStore, ran_s
from service.lifecycle import Ledger
from tests.support.clock import FakeClock
from warploom.errors import Conflict, Fenced, InvalidInput, NotFound
from warploom.records import Failure, Progress
from warploom.spec import JobSpec


def states(jobs: JobStore, job_id: str) -> list[str]:
    return [transition.state for transition in jobs.get(job_id).transitions if transition.phase is None]


def test_a_new_job_is_queued_with_its_complete_spec(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    assert (job.state, job.name, job.generation) == ("queued", job.id, 0)
    assert JobSpec.parse(job.spec) == spec
    assert job.spec["training"]["rounds"] == 100
    assert jobs.get(job.id) == job


def test_the_whole_life_writes_transitions_and_events(
    jobs: JobStore, connections: Connections, clock: FakeClock, spec: JobSpec
) -> None:
    job = jobs.create(spec)
    clock.advance(1)
    claim = jobs.claim("me", 10)
    assert claim is not None and (claim.job.id, claim.generation, claim.job.state) == (job.id, 1, "running")
    clock.advance(1)
    progress = Progress(meta_step=3, total=9, metrics={"loss": 0.5})
    assert jobs.heartbeat(job.id, 1, 10, phase="training", progress=progress) == "running"
    clock.advance(1)
    done = jobs.finish(job.id, 1, "succeeded", model="m")
    assert (done.state, done.model, done.phase) == ("succeeded", "m", "training")
    assert (done.started_at, done.ended_at) == (job.created_at + 1, job.created_at + 3)
    assert done.progress == progress.model_copy(update={"heartbeat_at": job.created_at + 2})
    assert states(jobs, job.id) == ["queued", "running", "succeeded"]
    assert [(t.state, t.phase, t.at - job.created_at) for t in done.transitions] == [
        ("queued", None, 0),
        ("running", None, 1),
        ("running", "starting", 1),
        ("running", "training", 2),
        ("succeeded", None, 3),
    ]
    told = [
        (event.kind, event.data.get("state", event.data.get("phase"))) for event in EventLog(connections).list(job.id)
    ]
    assert told == [("state", "queued"), ("state", "running"), ("phase", "training"), ("state", "succeeded")]
    assert jobs.load() == {"queued": 0, "held": 0}


def test_a_phase_is_never_taken_back_but_by_a_new_run(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    for phase in ("training", "exporting", "evaluating", "starting", "nonsense", "exporting"):
        jobs.heartbeat(job.id, 1, 10, phase=phase)
    assert jobs.get(job.id).phase == "exporting"
    jobs.release(job.id, 1)
    assert jobs.get(job.id).phase is None
    jobs.claim("me", 10)
    jobs.heartbeat(job.id, 2, 10, phase="training")
    phases = [step.phase for step in jobs.get(job.id).transitions if step.phase]
    assert phases == ["starting", "training", "exporting", "starting", "training"]


def test_the_oldest_job_is_claimed_first_and_only_once(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    made = []
    for _ in range(3):
        made.append(jobs.create(spec).id)
        clock.advance(1)
    claims = [jobs.claim("me", 100) for _ in range(4)]
    assert [claim.job.id if claim else None for claim in claims] == [*made, None]


def test_many_supervisors_share_the_queue_without_overlap(connections: Connections, spec: JobSpec) -> None:
    jobs = JobStore(connections)
    made = {jobs.create(spec).id for _ in range(8)}
    taken: list[str] = []

    def work() -> None:
        while claim := jobs.claim(threading.current_thread().name, 100):
            assert claim.generation == 1
            taken.append(claim.job.id)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken) == sorted(made)


def test_a_heartbeat_keeps_the_job_and_silence_loses_it(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    job = jobs.create(spec)
    assert jobs.claim("first", 10)
    clock.advance(9)
    jobs.heartbeat(job.id, 1, 10)
    clock.advance(9)
    assert jobs.claim("second", 10) is None
    clock.advance(2)
    claim = jobs.claim("second", 10)
    assert claim and claim.generation == 2 and claim.job.started_at == job.created_at


@pytest.mark.parametrize("call", ["heartbeat", "finish", "release", "event"])
def test_a_replaced_worker_is_fenced(
    jobs: JobStore, connections: Connections, clock: FakeClock, spec: JobSpec, call: str
) -> None:
    job = jobs.create(spec)
    jobs.claim("first", 10)
    clock.advance(11)
    jobs.claim("second", 10)
    before = jobs.get(job.id)
    calls: dict[str, Callable[[], object]] = {
        "heartbeat": lambda: jobs.heartbeat(job.id, 1, 10),
        "finish": lambda: jobs.finish(job.id, 1, "failed"),
        "release": lambda: jobs.release(job.id, 1),
        "event": lambda: EventLog(connections).append(job.id, "round", {}, generation=1),
    }
    with pytest.raises(Fenced):
        calls[call]()
    assert jobs.get(job.id) == before


def test_a_claim_raises_the_fence_on_the_replay_server(
    jobs: JobStore, connections: Connections, clock: FakeClock, spec: JobSpec
) -> None:
    job = jobs.create(spec)
    for generation in (1, 2):
        jobs.claim("me", 10)
        assert int(connections.replay.get(keys.fence(job.id)) or 0) == generation
        clock.advance(11)


def test_a_key_of_the_callers_makes_one_job(jobs: JobStore, spec: JobSpec) -> None:
    first, again, other = jobs.create(spec, "a"), jobs.create(spec, "a"), jobs.create(spec, "b")
    assert again == first
    assert other.id != first.id
    assert jobs.load() == {"queued": 2, "held": 0}
    jobs.cancel(first.id)
    assert jobs.create(spec, "a").state == "cancelled", "as it stands now"


def test_a_key_is_good_for_one_request(jobs: JobStore, spec: JobSpec) -> None:
    jobs.create(spec, "a")
    other = spec.model_copy(update={"name": "other"})
    with pytest.raises(InvalidInput) as refused:
        jobs.create(other, "a")
    assert (refused.value.field, refused.value.value) == ("/headers/idempotency-key", "a")
    assert jobs.load() == {"queued": 1, "held": 0}
    assert keys.once("job", "", "a") != keys.once("sweep", "", "a")


def test_many_at_once_with_one_key_make_one_job(jobs: JobStore, spec: JobSpec) -> None:
    start = threading.Barrier(8)

    def create(_: int) -> str:
        start.wait()
        return jobs.create(spec, "same").id

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(create, range(8)))
    assert len(made) == 1
    assert jobs.load()["queued"] == 1


def test_a_key_is_forgotten_after_a_day(jobs: JobStore, connections: Connections, spec: JobSpec) -> None:
    jobs.create(spec, "a")
    lifetime = connections.state.ttl(keys.once("job", "", "a"))
    assert 86_390 <= lifetime <= 86_400


def test_cancel_of_a_queued_job_ends_it(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    assert jobs.cancel(job.id).state == "cancelled"
    again = jobs.cancel(job.id)
    assert [step.state for step in again.transitions] == ["queued", "cancelled"]
    assert jobs.claim("me", 10) is None


def test_cancel_of_a_running_job_reaches_its_worker(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    assert jobs.cancel(job.id).state == "cancelling"
    assert jobs.cancel(job.id).state == "cancelling"
    assert jobs.heartbeat(job.id, 1, 10) == "cancelling"
    assert jobs.finish(job.id, 1, "cancelled").state == "cancelled"
    assert states(jobs, job.id) == ["queued", "running", "cancelling", "cancelled"]


def test_a_cancelling_job_of_a_dead_worker_is_claimed_to_be_ended(
    jobs: JobStore, clock: FakeClock, spec: JobSpec
) -> None:
    job = jobs.create(spec)
    jobs.claim("first", 10)
    jobs.cancel(job.id)
    clock.advance(11)
    claim = jobs.claim("second", 10)
    assert claim and (claim.generation, claim.job.state) == (2, "cancelling")
    assert jobs.heartbeat(job.id, 2, 10) == "cancelling"


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_cancel_after_the_end_is_a_conflict(jobs: JobStore, spec: JobSpec, end: str) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    jobs.finish(job.id, 1, end)
    with pytest.raises(Conflict) as caught:
        jobs.cancel(job.id)
    assert (caught.value.field, caught.value.value) == ("state", end) and "running" in str(caught.value.rule)


def test_cancel_and_finish_at_once_leave_one_end(connections: Connections, spec: JobSpec) -> None:
    jobs = JobStore(connections)
    for _ in range(10):
        job = jobs.create(spec)
        jobs.claim("me", 100)
        start = threading.Barrier(2)

        def cancel(job_id: str = job.id, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                jobs.cancel(job_id)
            except Conflict as error:
                assert error.value == "succeeded"

        canceller = threading.Thread(target=cancel)
        canceller.start()
        start.wait()
        jobs.finish(job.id, 1, "succeeded")
        canceller.join()
        assert states(jobs, job.id) in (
            ["queued", "running", "succeeded"],
            ["queued", "running", "cancelling", "succeeded"],
        )


def test_a_running_job_cannot_be_ended_as_cancelled_unasked(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    with pytest.raises(Conflict):
        jobs.finish(job.id, 1, "cancelled")
    with pytest.raises(InvalidInput):
        jobs.finish(job.id, 1, "running")


def test_repeating_an_end_changes_nothing(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    first = jobs.finish(job.id, 1, "failed", error=Failure(code="training_failed", message="NaN"))
    assert first.error and first.error.message == "NaN"
    assert jobs.finish(job.id, 1, "failed", error=Failure(code="other", message="late")) == first
    with pytest.raises(Conflict):
        jobs.finish(job.id, 1, "succeeded")


def test_a_released_job_goes_back_to_its_place(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    old = jobs.create(spec)
    clock.advance(1)
    jobs.create(spec)
    jobs.claim("first", 100)
    assert jobs.release(old.id, 1).state == "queued"
    with pytest.raises(Fenced):
        jobs.heartbeat(old.id, 1, 10)
    claim = jobs.claim("second", 100)
    assert claim and (claim.job.id, claim.generation) == (old.id, 2)


def test_a_queued_job_is_paused_at_once_and_resumed_at_its_place(
    jobs: JobStore, clock: FakeClock, spec: JobSpec
) -> None:
    old = jobs.create(spec)
    clock.advance(1)
    young = jobs.create(spec)
    assert jobs.pause(old.id).state == "paused"
    assert jobs.pause(old.id).state == "paused"
    assert jobs.load() == {"queued": 1, "held": 0}
    assert jobs.resume(old.id).state == "queued"
    assert jobs.resume(old.id).state == "queued"
    claims = [jobs.claim("me", 100), jobs.claim("me", 100)]
    assert [claim and claim.job.id for claim in claims] == [old.id, young.id]
    assert jobs.get(old.id).ended_at is None


def test_a_running_job_is_paused_by_its_worker(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    clock.advance(2)
    assert jobs.pause(job.id).state == "pausing"
    assert jobs.heartbeat(job.id, 1, 10) == "pausing"
    clock.advance(3)
    assert jobs.release(job.id, 1).state == "paused"
    clock.advance(100)
    assert jobs.claim("other", 10) is None, "nobody takes what rests"
    with pytest.raises(Fenced):
        jobs.heartbeat(job.id, 1, 10)
    jobs.resume(job.id)
    claim = jobs.claim("other", 10)
    assert claim and (claim.generation, claim.job.state, claim.job.retries) == (2, "running", 0)
    assert ran_s(claim.job) == 5.0
    assert states(jobs, job.id) == ["queued", "running", "pausing", "paused", "queued", "running"]


def test_resume_while_pausing_keeps_it_running_or_queues_it(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    jobs.pause(job.id)
    assert jobs.resume(job.id).state == "running"
    assert jobs.release(job.id, 1).state == "queued"


def test_a_pausing_job_of_a_dead_worker_is_claimed_to_be_paused(
    jobs: JobStore, clock: FakeClock, spec: JobSpec
) -> None:
    job = jobs.create(spec)
    jobs.claim("first", 10)
    jobs.pause(job.id)
    clock.advance(11)
    claim = jobs.claim("second", 10)
    assert claim and (claim.generation, claim.job.state, claim.job.retries) == (2, "pausing", 1)
    assert jobs.release(job.id, 2).state == "paused"


@pytest.mark.parametrize("asked", ["pause", "resume"])
def test_what_has_ended_or_is_being_cancelled_cannot_rest(jobs: JobStore, spec: JobSpec, asked: str) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    jobs.cancel(job.id)
    with pytest.raises(Conflict) as refused:
        getattr(jobs, asked)(job.id)
    assert refused.value.value == "cancelling"
    jobs.finish(job.id, 1, "cancelled")
    with pytest.raises(Conflict):
        getattr(jobs, asked)(job.id)


def test_a_paused_job_can_be_cancelled(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.pause(job.id)
    assert jobs.cancel(job.id).state == "cancelled"
    assert jobs.get(job.id).ended_at is not None


def test_a_job_that_finishes_while_pausing_has_succeeded(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("me", 10)
    jobs.pause(job.id)
    assert jobs.finish(job.id, 1, "succeeded").state == "succeeded"


def test_only_runs_that_were_lost_count_as_retries(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("first", 10)
    jobs.release(job.id, 1)
    jobs.claim("second", 10)
    assert jobs.get(job.id).retries == 0
    clock.advance(11)
    jobs.claim("third", 10)
    assert jobs.get(job.id).retries == 1
    jobs.release(job.id, 3, lost=True)
    claim = jobs.claim("fourth", 10)
    assert claim and claim.job.retries == 2


def test_losses_in_a_row_count_from_the_last_progress(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    """A job that crashes its learner at the same place again and again is told from one on unlucky machines."""
    job = jobs.create(spec)
    counted = []
    for generation, reached in enumerate((0, 0, 10, 4, 10, 11), start=1):
        jobs.claim("me", 10)
        jobs.heartbeat(job.id, generation, 10, progress=Progress(meta_step=reached, total=100))
        jobs.release(job.id, generation, lost=True)
        counted.append(jobs.get(job.id).lost_in_a_row)
    assert counted == [1, 2, 1, 2, 3, 1]
    assert jobs.get(job.id).retries == 6


def test_a_claim_based_on_an_old_look_fails(
    jobs: JobStore, connections: Connections, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.create(spec)
    ledger = Ledger(connections, "job")
    stale = ledger.read(job.id)
    jobs.claim("first", 100)
    jobs.release(job.id, 1)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "read", lambda _: stale)
        assert ledger.claim("second", 100) is None, "it would have become generation 1 a second time"
    claim = jobs.claim("second", 100)
    assert claim and claim.generation == 2


def test_a_released_cancelling_job_is_claimable_at_once(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec)
    jobs.claim("first", 100)
    jobs.cancel(job.id)
    jobs.release(job.id, 1)
    claim = jobs.claim("second", 100)
    assert claim and (claim.generation, claim.job.state) == (2, "cancelling")


def test_pages_are_newest_first_and_complete(jobs: JobStore, spec: JobSpec) -> None:
    made = [jobs.create(spec).id for _ in range(7)]
    jobs.cancel(made[2])
    seen: list[str] = []
    after = None
    while True:
        page = jobs.list(limit=3, after=after)
        seen += [job.id for job in page.data]
        if not page.has_more:
            break
        after = seen[-1]
    assert seen == made[::-1]
    assert [job.id for job in jobs.list(limit=2, state="cancelled").data] == [made[2]]
    assert jobs.list(limit=6, state="queued").has_more is False
    assert jobs.list(limit=5, state="queued").has_more is True


def test_bad_questions_are_refused(jobs: JobStore) -> None:
    for limit, after, state in ((0, None, None), (1001, None, None), (5, "nonsense", None), (5, None, "asleep")):
        with pytest.raises(InvalidInput):
            jobs.list(limit=limit, after=after, state=state)
    for job_id in (new_id("job"), "job_", "../x", "sweep_00000000000000000000"):
        with pytest.raises(NotFound):
            jobs.get(job_id)
        with pytest.raises(NotFound):
            jobs.cancel(job_id)


def test_ids_sort_by_time() -> None:
    made = [new_id("job") for _ in range(1000)]
    assert made == sorted(made) and len(set(made)) == 1000
