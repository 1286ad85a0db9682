"""A short drill; `make soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import Drill, Plan, wrong_versions
from warploom.records import Event

PLAN = Plan(
    jobs=2,
    faults=4,
    rounds=60,
    at_once=2,
    supervisors=1,
    shards=2,
    sorts=1,
    asynchronous=2,
    gap_s=(0.5, 3.0),
    minutes=20.0,
    kinds=("rollout", "redis-state", "learner", "redis-replay"),
    in_turn=True,
)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_jobs_end_as_in_the_quiet_run_whatever_is_killed(tmp_path: Path) -> None:
    report = Drill(tmp_path, PLAN).run()
    assert not report.broken
    assert len(report.done) == PLAN.faults
    assert {"redis-state", "redis-replay"} < set(report.done), "they are always there"
    assert [job.state for job in report.jobs] == ["succeeded"] * PLAN.jobs


def told(*events: tuple[str, int]) -> list[Event]:
    data = [{"state": "running", "generation": n} if kind == "state" else {"meta_step": n} for kind, n in events]
    return [Event(id=str(i), at=0.0, kind=kind, data=data[i]) for i, (kind, _) in enumerate(events)]


def test_the_drill_sees_wrong_versions() -> None:
    """What it lets pass: rounds done again after a restart, an event told twice."""
    start, again = ("state", 1), ("state", 2)
    fine = told(start, ("round", 1), ("round", 2), ("round", 2), again, ("round", 2), ("round", 3))
    assert wrong_versions(fine, 3) == []
    assert wrong_versions(told(start, ("round", 1), ("round", 3)), 3)
    assert wrong_versions(told(start, ("round", 2), ("round", 1), ("round", 2)), 2)
    assert wrong_versions(told(start, ("round", 1)), 2) == ["rounds were left out: [2]"]
    assert wrong_versions(told(start, ("round", 1), again, ("round", 3)), 3)
