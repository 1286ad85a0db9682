"""The history of a job."""

from __future__ import annotations

import pytest

from service.connection import Connections
from service.events import EventLog, parse_entry, stream_key
from service.ids import new_id
from service.jobs import JobStore
from warploom.errors import InvalidInput, NotFound
from warploom.spec import JobSpec


def test_events_are_read_in_order_and_resumed(jobs: JobStore, connections: Connections, spec: JobSpec) -> None:
    job, log = jobs.create(spec), EventLog(connections)
    jobs.claim("me", 10)
    made = [log.append(job.id, "round", {"meta_step": step, "loss": 0.5}, generation=1) for step in range(5)]
    assert log.list(job.id)[2:] == made
    assert log.list(job.id, made[1].id) == made[2:]
    assert log.list(job.id, made[1].id, 2) == made[2:4]
    assert log.list(job.id, made[-1].id) == []
    raw = connections.state.xrange(stream_key(job.id))
    assert parse_entry(*raw[-1]) == made[-1]  # type: ignore[index]


def test_the_history_is_capped(
    jobs: JobStore, connections: Connections, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, log = jobs.create(spec), EventLog(connections)
    jobs.claim("me", 10)
    with connections.state.pipeline(transaction=False) as pipe:
        for _ in range(10_500):
            pipe.xadd(stream_key(job.id), {"at": "0", "kind": "round", "data": "{}"})
        pipe.execute()
    log.append(job.id, "round", {}, generation=1)
    assert connections.state.xlen(stream_key(job.id)) <= 10_200


def test_bad_questions_are_refused(jobs: JobStore, connections: Connections, spec: JobSpec) -> None:
    job, log = jobs.create(spec), EventLog(connections)
    for after in ("x", "1", "-", "1-2-3", f"{2**64}-0"):
        with pytest.raises(InvalidInput):
            log.list(job.id, after)
    with pytest.raises(InvalidInput):
        log.list(job.id, limit=0)
    with pytest.raises(InvalidInput):
        log.append(job.id, "round", {"loss": float("nan")}, generation=0)
    with pytest.raises(NotFound):
        log.list(new_id("job"))
    with pytest.raises(NotFound):
        log.append(new_id("job"), "round", {}, generation=0)
