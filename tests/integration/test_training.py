"""Jobs on real actors and real Redis: the same numbers however many work, and whoever dies."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest
import torch

from service import keys
from tests.integration.conftest import Service
from tests.support.waiting import wait_until
from warploom.local import train
from warploom.spec import JobSpec
from warploom.types import Tensors

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def sine(**training: Any) -> dict[str, Any]:
    return {
        "algorithm": {
            "name": "warpgrad",
            "inner_lr": 0.01,
            "inner_steps": 4,
            "outer": "adam",
            "warp_lr": 3e-3,
            "init_lr": 3e-3,
            "points_per_update": 8,
        },
        "task": "sinusoid",
        "model": {"name": "warp_mlp", "hidden": [16]},
        "training": {"rounds": 6, "meta_batch": 6, "unit": 2, "rollouts": 1, "checkpoint_every": 2, **training},
        "evaluation": {"every": 3, "tasks": 4},
        "resources": {"learner_threads": 1},
    }


def glyphs(**training: Any) -> dict[str, Any]:
    return {
        **sine(**{"rounds": 2, "meta_batch": 3, "unit": 1, **training}),
        "algorithm": {"name": "warpgrad", "inner_steps": 3, "inner_batch": 4, "initialisation": "leap-simplified"},
        "task": {"name": "glyphs", "ways": 3, "shots": 3, "queries": 2, "image_size": 16, "alphabets": 4},
        "model": {"name": "warp_conv4", "layers": 2, "filters": 4},
    }


def local(document: dict[str, Any]) -> Tensors:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(JobSpec.parse(document)).meta.params
    finally:
        torch.set_num_threads(threads)


def equal(one: Tensors, other: Tensors) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def pids(kind: str) -> list[int]:
    """Processes of this session's live actors of this class."""
    own = psutil.Process().children(recursive=True)
    return [process.pid for process in own if _title(process).startswith(f"ray::{kind}")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_one_and_three_rollouts_and_one_process_give_the_same_bytes(service: Service) -> None:
    one, three = service.submit(sine()), service.submit(sine(rollouts=3))
    expected = local(sine())
    assert equal(service.weights(one), expected)
    assert equal(service.weights(three), expected)
    job = service.jobs.get(one)
    assert job.progress.meta_step == job.progress.total == 6
    assert "loss" in job.progress.metrics
    phases = [step.phase for step in job.transitions if step.phase]
    assert (phases[0], phases[-1]) == ("starting", "exporting")
    assert "training" in phases
    assert service.last(one, "evaluation")["meta_step"] == 6


def test_images_too(service: Service) -> None:
    assert equal(service.weights(service.submit(glyphs(rollouts=3))), local(glyphs()))


def test_a_killed_rollout_is_replaced_and_changes_nothing(service: Service) -> None:
    job_id = service.submit(sine(rounds=24))
    wait_until(lambda: service.round(job_id) >= 2, 150)
    os.kill(pids("RolloutWorker")[0], signal.SIGKILL)
    assert equal(service.weights(job_id), local(sine(rounds=24)))
    assert service.last(job_id, "worker_lost")["role"] == "rollout"
    assert service.jobs.get(job_id).generation == 1


def test_a_run_that_ends_early_is_followed_by_another_with_the_same_end(service: Service) -> None:
    """A killed learner, a claim that was begun but not completed, a supervisor that leaves: each costs a generation."""
    document = sine(rounds=60)
    job_id = service.submit(document)
    wait_until(lambda: service.round(job_id) >= 3, 150)
    os.kill(pids("LearnerWorker")[0], signal.SIGKILL)
    _next_generation(service, job_id, 2)
    service.connections.replay.execute_command("SET", keys.fence(job_id), 3)
    _next_generation(service, job_id, 3)
    assert "not completed" in service.last(job_id, "warning")["message"]
    service.stop()
    assert service.jobs.get(job_id).state == "queued"
    service.start()
    assert equal(service.weights(job_id), local(document))
    assert service.jobs.get(job_id).generation == 4
    rounds = [e.data["meta_step"] for e in service.events.list(job_id, limit=10_000) if e.kind == "round"]
    assert rounds.count(1) == 1, "a later generation started at a checkpoint and not anew"
    assert sorted(set(rounds)) == list(range(1, 61))


def _next_generation(service: Service, job_id: str, generation: int) -> None:
    """Wait until it has finished rounds of its own."""
    before = service.round(job_id)
    wait_until(lambda: service.jobs.get(job_id).generation == generation, 60)
    wait_until(lambda: service.round(job_id) >= before + 3, 150)


def test_a_paused_job_rests_and_goes_on_where_it_was(service: Service) -> None:
    """Long rounds between checkpoints: what is done up to the pause is kept all the same, and the end is the same."""
    document = sine(rounds=60, checkpoint_every=1000)
    job_id = service.submit(document)
    wait_until(lambda: service.round(job_id) >= 3, 150)
    assert service.jobs.pause(job_id).state == "pausing"
    service.wait(job_id, lambda job: job.state == "paused")
    wait_until(lambda: not pids("RolloutWorker") and not pids("LearnerWorker"), 30)
    rested = service.round(job_id)
    latest = service.checkpoints(job_id).latest()
    assert latest is not None
    assert latest.round == rested < 60
    service.jobs.resume(job_id)
    assert equal(service.weights(job_id), local(document))
    rounds = [e.data["meta_step"] for e in service.events.list(job_id, limit=10_000) if e.kind == "round"]
    assert rounds == list(range(1, 61)), "no round was done twice"
    assert service.jobs.get(job_id).retries == 0


def test_a_job_ends_after_its_longest_runtime(service: Service) -> None:
    job_id = service.submit(sine(rounds=100_000, max_runtime_s=1.0))
    job = service.wait(job_id)
    assert job.error is not None
    assert (job.state, job.error.code, job.error.category) == ("failed", "runtime_exceeded", "user")


def test_a_job_whose_runs_are_lost_too_often_fails(service: Service) -> None:
    job_id = service.submit(sine(rounds=100_000, max_retries=0))
    wait_until(lambda: service.round(job_id) >= 1, 150)
    os.kill(pids("LearnerWorker")[0], signal.SIGKILL)
    job = service.wait(job_id)
    assert job.error is not None
    assert job.state == "failed"
    assert "max_retries is 0" in job.error.message
    assert job.retries == 1


def held(service: Service, job_id: str) -> int:
    """How much of the job's buffer is on the replay server."""
    return service.connections.replay.exists(keys.replay(job_id, "state"), keys.replay(job_id, "units"))


def test_async_mode_ends_and_bounds_staleness(service: Service) -> None:
    document = sine(mode="async", rounds=8) | {"replay": {"max_staleness": 2}}
    job_id = service.submit(document)
    service.weights(job_id)
    lags = [e.data["staleness"] for e in service.events.list(job_id, limit=10_000) if e.kind == "round"]
    assert len(lags) == 8
    assert max(lags) <= 2
    wait_until(lambda: not held(service, job_id), what="the buffer is freed")


def test_cancel_stops_a_running_job_and_its_actors(service: Service) -> None:
    job_id = service.submit(sine(rounds=100_000))
    wait_until(lambda: service.round(job_id) >= 2, 150)
    assert held(service, job_id)
    assert service.jobs.cancel(job_id).state == "cancelling"
    job = service.wait(job_id)
    assert job.state == "cancelled"
    wait_until(lambda: not pids("RolloutWorker") and not pids("LearnerWorker"), 30)
    assert service.checkpoints(job_id).latest() is not None
    wait_until(lambda: not held(service, job_id), what="the buffer is freed")


def test_jobs_that_cannot_work_fail_alone_with_the_reason(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    diverging = sine()
    diverging["algorithm"] |= {"warp_lr": 100.0, "outer": "sgd", "points_per_update": 1}
    too_small = sine()
    too_small["replay"] = {"max_bytes": 2**20}
    too_small["model"] = {"name": "warp_mlp", "hidden": [400, 400]}
    endless = sine(max_stall_s=4.0) | {"task": {"name": "arrays", "file": "endless.npz"}}
    giant = sine() | {"model": {"name": "warp_mlp", "hidden": [300_000, 300_000]}}
    bad, large = service.submit(diverging), service.submit(too_small)
    hanging, huge, good = service.submit(endless), service.submit(giant), service.submit(sine())
    failed = service.wait(bad)
    assert failed.state == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.category) == ("training_failed", "user")
    refused = service.wait(large)
    assert refused.error is not None
    assert "replay.max_bytes" in refused.error.message
    ends = {
        job_id: (job.state, job.error and (job.error.code, job.error.category, job.error.retryable))
        for job_id in (hanging, huge, good)
        for job in (service.wait(job_id),)
    }
    assert ends == {
        hanging: ("failed", ("stalled", "user", True)),
        huge: ("failed", ("out_of_memory", "capacity", True)),
        good: ("succeeded", None),
    }


def test_a_job_that_wants_gpus_runs_on_cpus_where_there_are_none(service: Service) -> None:
    document = sine(rounds=1) | {"resources": {"rollout_gpus": 1, "learner_gpus": 0.5}}
    job = service.wait(service.submit(document))
    assert job.state == "succeeded", job.error
    if not torch.cuda.is_available():
        assert "no GPU" in service.last(job.id, "warning")["message"]


def test_no_rounds_register_the_untrained_model(service: Service) -> None:
    document = {**sine(rounds=0), "algorithm": "none", "name": "floor"}
    job = service.wait(service.submit(document))
    assert job.state == "succeeded"
    model = service.models.get("floor")
    assert (model.version, model.job, model.input_shape) == (1, job.id, [1])


def test_two_learners_are_as_one(service: Service) -> None:
    """Shares are summed in another order, so equal up to float32 round-off, which Adam's division enlarges."""
    document = sine(learners=2, rounds=4)
    document["algorithm"] |= {"outer": "sgd", "warp_lr": 0.01, "init_lr": 0.01}
    weights = service.weights(service.submit(document))
    expected = local(document)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)
