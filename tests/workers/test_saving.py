"""A learner's checkpoints and the job's history."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import workers.context
from service import storage
from service.connection import Connections
from service.events import EventLog
from service.jobs import JobStore
from service.settings import Settings
from tests.support.proxy import Proxy
from warploom.learner import LearnerState
from warploom.spec import JobSpec
from warploom.types import MetaState
from workers import saving
from workers.context import Assignment, JobContext, shipped
from workers.saving import Saver

SPEC = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp"})


@pytest.fixture
def context(connections: Connections, redis_settings: Settings) -> Iterator[JobContext]:
    jobs = JobStore(connections)
    job = jobs.create(SPEC)
    claim = jobs.claim("test", 60.0)
    assert claim is not None
    made = JobContext(Assignment(job.id, job.name, claim.generation, SPEC.to_json(), shipped(redis_settings)))
    yield made
    made.connections.close()


def state(version: int) -> LearnerState:
    return LearnerState(MetaState(version, {"w": torch.full((2,), float(version))}))


def events(context: JobContext, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    found = context.events.list(context.assignment.job_id, limit=1000)
    return [(event.kind, event.data) for event in found if event.kind in kinds]


def test_a_full_disk_is_told_once_and_tried_again(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = Saver(context)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        assert saver(state(1)) is False
        assert saver(state(2)) is False, "not tried again so soon"
        assert saver(state(2), now=True) is False
    assert saver(state(3)) is False, "not tried again so soon"
    assert saver(state(4), now=True) is True
    assert saver(state(5)) is True
    told = events(context, "checkpoint", "checkpoint_failed")
    assert [(kind, data["meta_step"]) for kind, data in told] == [
        ("checkpoint_failed", 1),
        ("checkpoint", 4),
        ("checkpoint", 5),
    ]
    assert "No space left" in told[0][1]["message"]


def test_a_damaged_checkpoint_is_told(context: JobContext) -> None:
    assert saving.load(context) is None
    Saver(context)(state(1))
    where = context.checkpoints.save(2, {"meta.safetensors": b"?"}, {})
    (Path(where) / "meta.safetensors").write_bytes(b"")
    found = saving.load(context)
    assert found is not None
    assert found.meta.version == 1
    ((_, data),) = events(context, "checkpoint_skipped")
    assert data["meta_step"] == 2
    assert "SHA-256" in data["message"]


def test_events_of_an_outage_are_told_in_order_when_it_is_over(
    connections: Connections, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.context, "SILENT_S", 0.0)
    jobs = JobStore(connections)
    job = jobs.create(SPEC)
    assert jobs.claim("test", 60.0)
    with Proxy(redis_settings.state_url) as proxy:
        settings = redis_settings.model_copy(update={"state_url": proxy.url})
        context = JobContext(Assignment(job.id, job.name, 1, SPEC.to_json(), shipped(settings)))
        context.report("round", {"meta_step": 1})
        proxy.away(True)
        context.report("round", {"meta_step": 2, "loss": float("nan")})
        context.report("round", {"meta_step": 3})
        proxy.away(False)
        context.tell_all()
        context.connections.close()
    told = [event.data for event in EventLog(connections).list(job.id) if event.kind == "round"]
    assert told == [{"meta_step": 1}, {"meta_step": 2, "loss": None}, {"meta_step": 3}]
