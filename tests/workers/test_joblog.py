"""What an actor says reaches its job's log."""

from __future__ import annotations

import logging
import warnings

import pytest
import structlog

from service.connection import Connections
from service.logs import LogStore
from service.settings import Settings
from warploom.errors import TrainingFailed
from workers.context import Assignment, shipped
from workers.joblog import logged

JOB = "job_00000000000000000000"


class Worker:
    def __init__(self, settings: Settings, error: Exception | None = None) -> None:
        self._assignment = Assignment(job_id=JOB, name="m", generation=3, spec={}, settings=shipped(settings))
        self._error = error

    @logged(lambda _: "learner")
    def run(self) -> int:
        structlog.get_logger().warning("redis is away", url="redis://me:hunter2@host/0")
        logging.getLogger("library").info("%d files", 3)
        warnings.warn("numbers may be wrong", UserWarning, stacklevel=1)
        if self._error is not None:
            raise self._error
        return 5


@pytest.mark.filterwarnings("always::UserWarning")
def test_all_that_an_actor_says(connections: Connections, redis_settings: Settings) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    with pytest.raises(TrainingFailed):
        Worker(redis_settings, TrainingFailed("no gradient")).run()
    assert Worker(redis_settings).run() == 5
    lines = LogStore(connections).tail(JOB, 100)
    assert {(line.worker, line.generation) for line in lines} == {("learner", 3)}
    said = [(line.level, line.message) for line in lines]
    assert said[0] == ("info", "starts, generation 3")
    assert ("warning", "redis is away url=redis://me:***@host/0") in said
    assert ("info", "3 files") in said
    assert any("numbers may be wrong" in message for level, message in said if level == "warning")
    ends = next(message for level, message in said if level == "error")
    assert "TrainingFailed: no gradient" in ends and "Traceback" in ends
    assert said[-1] == ("info", "is done")
    assert (logging.getLogger().handlers, logging.getLogger().level) == before
