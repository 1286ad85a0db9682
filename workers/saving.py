"""A learner's checkpoints: saved when it can be, and never a reason to stop."""

from __future__ import annotations

import time

import structlog

from warploom.errors import Unavailable
from warploom.learner import LearnerState
from warploom.training import pack_state, unpack_state
from workers.context import JobContext

log = structlog.get_logger()
AGAIN_S = 5.0
TELL_S = 60.0


class Saver:
    """Saves the states of one learner, and tells the job's history.

    A full disk does not end the job: the event `checkpoint_failed` says so, and the next round tries again.
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._not_before = self._told = -TELL_S

    def __call__(self, state: LearnerState, *, now: bool = False) -> bool:
        """Save `state`; False when that is to be tried again with a later one.

        Args:
            state: of the learner between two rounds.
            now: also right after a try that failed.
        """
        version = state.meta.version
        if not now and time.monotonic() < self._not_before:
            return False
        try:
            self._context.checkpoints.save(version, pack_state(state), {"spec": self._context.spec.to_json()})
        except Unavailable as error:
            self._not_before = time.monotonic() + AGAIN_S
            self._complain(version, error.message)
            return False
        self._not_before = self._told = -TELL_S
        self._context.report("checkpoint", {"meta_step": version})
        return True

    def _complain(self, version: int, message: str) -> None:
        log.warning("checkpoint failed", job=self._context.assignment.job_id, meta_step=version, reason=message)
        if time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            self._context.report("checkpoint_failed", {"meta_step": version, "message": message})


def load(context: JobContext) -> LearnerState | None:
    """The state of the last whole checkpoint, or None; those that are passed over are told.

    Raises:
        Unavailable: the storage does not answer.
    """

    def skipped(round: int, reason: str) -> None:
        context.report("checkpoint_skipped", {"meta_step": round, "message": reason})

    found = context.checkpoints.latest(skipped)
    return None if found is None else unpack_state(found.blobs)
