"""A rollout actor: adapts to units of tasks until the job is done."""

from __future__ import annotations

import threading
import time

import structlog
import torch

from warploom.build import build
from warploom.errors import Fenced, Unavailable
from warploom.rollout import RolloutLoop
from warploom.threads import use_threads
from workers.context import UNIT_LEASE_S, Assignment, JobContext
from workers.joblog import logged

log = structlog.get_logger()
REST_S = 1.0  # the longest rest between two looks at the buffer
AWAY_S = 1.0


class RolloutWorker:
    """One rollout actor of one job.

    Args:
        assignment: the job.
        worker: its name among the job's rollouts.
    """

    def __init__(self, assignment: Assignment, worker: str) -> None:
        self._assignment, self._worker = assignment, worker

    @logged(lambda self: self._worker)
    def run(self) -> int:
        """Work until the last round is published, or until a newer generation takes over.

        Returns:
            Units done.
        """
        context = JobContext(self._assignment)
        resources = context.spec.resources
        use_threads(resources.rollout_threads)
        device = "cuda" if resources.rollout_gpus > 0 and torch.cuda.is_available() else "cpu"
        loop = RolloutLoop(build(context.spec), context.spec, context.replay, self._worker, device)
        stop = threading.Event()
        threading.Thread(target=self._keep_claim, args=(context, loop, stop), daemon=True).start()
        try:
            _until_done(context, loop)
        except Fenced:
            pass  # replaced: the newer generation has rollouts of its own
        finally:
            stop.set()
        return loop.units_done

    def _keep_claim(self, context: JobContext, loop: RolloutLoop, stop: threading.Event) -> None:
        """Renew the claim on the unit in work, so that a long adaptation is not given to another."""
        while not stop.wait(UNIT_LEASE_S / 3):
            unit = loop.unit
            if unit is None:
                continue
            try:
                context.replay.renew(self._worker, unit)
            except (Fenced, Unavailable):
                continue  # the loop itself will see it


def _until_done(context: JobContext, loop: RolloutLoop) -> None:
    """Work; while Redis is away, wait: the supervisor ends whom it does not need."""
    while True:
        try:
            if not loop.step():
                if context.replay.done():
                    return
                context.replay.wait("rollouts", REST_S)
        except Unavailable as error:
            log.warning("the replay is away", error=error.message)
            time.sleep(AWAY_S)
