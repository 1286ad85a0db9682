"""Checkpoints over the API: listed from the job's record, read from where workers wrote them, begun with."""

from __future__ import annotations

from typing import Any

import pytest

from service.connection import Connections
from service.events import EventLog
from service.jobs import JobClaim, JobStore
from service.models import ModelStore
from service.settings import Settings
from tests.api.conftest import Api
from warploom.build import build
from warploom.errors import DataMissing, InvalidInput
from warploom.learner import LearnerState
from warploom.spec import JobSpec
from warploom.wire import decode
from workers.context import Assignment, JobContext, shipped
from workers.saving import Saver, fork

SPEC = {
    "algorithm": {"name": "maml", "inner_steps": 2},
    "task": "sinusoid",
    "model": {"name": "mlp", "hidden": [4]},
    "training": {"rounds": 100},
}


def context(connections: Connections, settings: Settings) -> JobContext:
    claim = JobStore(connections).claim("test", 60)
    assert isinstance(claim, JobClaim)
    job = claim.job
    given = shipped(settings)
    return JobContext(
        Assignment(job_id=job.id, name=job.name, generation=claim.generation, spec=job.spec, settings=given)
    )


def saved(found: JobContext, *steps: int) -> LearnerState:
    state = LearnerState(build(found.spec).init(3))
    for step in steps:
        meta = type(state.meta)(step, state.meta.params, state.meta.stats)
        state = LearnerState(meta, state.outer, state.dropped)
        assert Saver(found)(state)
    return state


@pytest.fixture
def trained(client: Api, connections: Connections, settings: Settings) -> JobContext:
    sent = client.post("/v1/jobs", json=SPEC)
    assert sent.status_code == 202
    found = context(connections, settings)
    found.note_versions()
    EventLog(connections).append(
        sent.json()["id"], "evaluation", {"meta_step": 40, "loss": 0.5, "diverged": 0}, generation=1
    )
    return found


def test_checkpoints_are_listed_and_downloaded(client: Api, trained: JobContext) -> None:
    job_id = trained.assignment.job_id
    path = f"/v1/jobs/{job_id}/checkpoints"
    assert client.get(path).json() == {"data": [], "has_more": False}
    saved(trained, 10, 20, 30, 40)
    listed = client.get(path).json()["data"]
    assert [one["step"] for one in listed] == [20, 30, 40], "those that are stored"
    assert listed[-1]["id"] == f"ckpt_{job_id[4:]}_40"
    assert (listed[-1]["metrics"], listed[0]["metrics"]) == ({"loss": 0.5, "diverged": 0}, {})
    answer = client.get(f"{path}/40/weights")
    assert answer.status_code == 200
    assert (len(answer.content), answer.headers["x-content-sha256"]) == (listed[-1]["bytes"], listed[-1]["sha256"])
    arrays, header = decode("meta", answer.content)
    assert header["version"] == 40 and arrays["p/layer0.weight"].shape == (4, 1)
    assert client.get(f"{path}/10/weights").status_code == 404
    assert client.get(f"{path}/x/weights").status_code == 422


def test_bytes_that_are_not_here_are_refused_in_a_sentence(
    client: Api, trained: JobContext, connections: Connections
) -> None:
    saved(trained, 40)
    job_id = trained.assignment.job_id
    for place in trained.settings.jobs_dir.glob("*/checkpoints/round-*"):
        (place / "meta.safetensors").unlink()
    answer = client.get(f"/v1/jobs/{job_id}/checkpoints/40/weights")
    assert answer.status_code == 503
    assert "checkpoint_url" in answer.json()["detail"]
    assert ModelStore(connections).list().data == []


def test_lineage(client: Api, trained: JobContext) -> None:
    told = client.get(f"/v1/jobs/{trained.assignment.job_id}/lineage").json()
    assert told["sent"] == SPEC
    assert told["spec"]["training"]["meta_batch"] == 5
    assert told["seed"] == 0 and told["forked_from"] is None
    assert set(told["versions"]) == {"python", "torch", "ray", "warploom"}


@pytest.mark.parametrize("by", ["job", "checkpoint"])
def test_a_job_begins_with_anothers_checkpoint(
    client: Api, trained: JobContext, connections: Connections, settings: Settings, by: str
) -> None:
    state = saved(trained, 30, 40)
    origin = trained.assignment.job_id
    checkpoint = f"ckpt_{origin[4:]}_40"
    given = origin if by == "job" else checkpoint
    sent = {**SPEC, "from_checkpoint": given, "task": {"name": "sinusoid", "shots": 7}}
    job = client.post("/v1/jobs", json=sent, headers={"Idempotency-Key": "k"}).json()
    assert (job["forked_from"], job["spec"]["from_checkpoint"]) == (checkpoint, checkpoint)
    forked = context(connections, settings)
    begun = fork(forked, build(forked.spec))
    assert begun is not None and begun.meta.version == 40
    assert all(value.equal(state.meta.params[name]) for name, value in begun.meta.params.items())
    saved(trained, 50)
    assert client.post("/v1/jobs", json=sent, headers={"Idempotency-Key": "k"}).json()["id"] == job["id"]
    assert client.get(f"/v1/jobs/{job['id']}/lineage").json()["forked_from"] == checkpoint
    for place in settings.jobs_dir.glob("*/checkpoints/round-*"):
        (place / "manifest.json").unlink()
    with pytest.raises(DataMissing):
        fork(forked, build(forked.spec))


def test_what_does_not_fit_is_refused_at_the_door(client: Api, trained: JobContext, connections: Connections) -> None:
    saved(trained, 40)
    checkpoint = f"ckpt_{trained.assignment.job_id[4:]}_40"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"from_checkpoint": checkpoint[:-2] + "41"}, "/from_checkpoint"),
        ({"from_checkpoint": "job_00000000000000000000"}, "/from_checkpoint"),
        ({"from_checkpoint": "../../etc/passwd"}, "/from_checkpoint"),
        ({"algorithm": "fomaml"}, "/algorithm/name"),
        ({"model": {"name": "mlp", "hidden": [5]}}, "/model"),
        ({"task": "alpine"}, "/task"),
        ({"training": {"rounds": 40}}, "/training/rounds"),
    ]
    for change, pointer in cases:
        answer = client.post("/v1/jobs", json={**SPEC, "from_checkpoint": checkpoint, **change})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    space = {"algorithm.inner_lr": {"type": "uniform", "low": 0.1, "high": 0.2}}
    sweep = client.post("/v1/sweeps", json={"job": {**SPEC, "from_checkpoint": checkpoint}, "space": space})
    assert sweep.status_code == 422
    from warploom.local import train

    with pytest.raises(InvalidInput, match="begins anew"):
        train(JobSpec.parse({**SPEC, "from_checkpoint": checkpoint}))
