"""Pages with filters, and metadata."""

from __future__ import annotations

import pytest

from service.connection import Connections
from service.jobs import JobStore
from service.models import ModelStore
from tests.support.clock import FakeClock
from warploom.errors import InvalidInput, NotFound
from warploom.records import Job, Page
from warploom.spec import JobSpec


def ids(page: Page[Job]) -> list[str]:
    return [job.id for job in page.data]


def test_pages_in_both_orders_meet_every_job_once(jobs: JobStore, spec: JobSpec) -> None:
    made = [jobs.create(spec).id for _ in range(7)]
    for order, expected in (("asc", made), ("desc", made[::-1])):
        seen: list[str] = []
        more, after = True, None
        while more:
            page = jobs.list(limit=3, after=after, order=order)
            seen += ids(page)
            more, after = page.has_more, seen[-1]
        assert seen == expected


def test_filters_hold_across_pages(jobs: JobStore, clock: FakeClock, spec: JobSpec) -> None:
    made, times = [], []
    for i in range(9):
        clock.advance(10)
        job = jobs.create(spec.model_copy(update={"metadata": {"team": "ab"[i % 2], "n": str(i)}}))
        made.append(job.id)
        times.append(job.created_at)
    team = jobs.list(limit=2, order="asc", metadata={"team": "a"})
    assert (ids(team), team.has_more) == ([made[0], made[2]], True)
    rest = jobs.list(limit=3, after=made[2], order="asc", metadata={"team": "a"})
    assert (ids(rest), rest.has_more) == ([made[4], made[6], made[8]], False)
    assert ids(jobs.list(metadata={"team": "b", "n": "3"})) == [made[3]]
    assert ids(jobs.list(metadata={"team": "b", "n": "2"})) == []
    assert ids(jobs.list(created_after=times[3], created_before=times[5], order="asc")) == made[3:5]
    jobs.cancel(made[4])
    assert ids(jobs.list(state="cancelled", created_after=times[4])) == [made[4]]
    assert ids(jobs.list(state="cancelled", created_after=times[5])) == []


def test_metadata_changes_pair_by_pair(jobs: JobStore, spec: JobSpec) -> None:
    job = jobs.create(spec.model_copy(update={"metadata": {"a": "1", "b": "2"}}))
    assert job.metadata == {"a": "1", "b": "2"}
    assert "metadata" not in job.spec
    assert jobs.note(job.id, {"a": None, "b": "3", "ünï\n": "x:[1]"}).metadata == {"b": "3", "ünï\n": "x:[1]"}
    assert jobs.note(job.id, {}).metadata == {"b": "3", "ünï\n": "x:[1]"}
    assert jobs.note(job.id, {"b": None, "ünï\n": None}).metadata == {}
    full = {str(i): "" for i in range(16)}
    assert jobs.note(job.id, full).metadata == full
    with pytest.raises(InvalidInput, match="17 pairs"):
        jobs.note(job.id, {"one more": "x"})
    assert jobs.note(job.id, {"one more": "x", "0": None}).metadata.keys() == full.keys() - {"0"} | {"one more"}
    for missing in ("job_00000000000000000000", "job_none"):
        with pytest.raises(NotFound):
            jobs.note(missing, {"a": "1"})


def test_metadata_is_part_of_a_repeated_submission(jobs: JobStore, spec: JobSpec) -> None:
    jobs.create(spec, "key")
    with pytest.raises(InvalidInput):
        jobs.create(spec.model_copy(update={"metadata": {"a": "b"}}), "key")


def test_metadata_belongs_to_all_versions_of_a_model(connections: Connections) -> None:
    models = ModelStore(connections)
    facts = {"kind": "regression", "input_shape": [1], "outputs": 1, "parameters": 1, "default_steps": 1}
    for once in ("x", "y"):
        models.register("m", b"blob", **facts, default_lr=0.1, metrics={}, spec={}, once=once)  # type: ignore[arg-type]
    models.register("n", b"blob", **facts, default_lr=0.1, metrics={}, spec={}, once="z")  # type: ignore[arg-type]
    models.note("m", {"owner": "me"})
    assert [model.metadata for model in models.versions("m").data] == [{"owner": "me"}] * 2
    with pytest.raises(NotFound):
        models.note("missing", {"owner": "me"})
