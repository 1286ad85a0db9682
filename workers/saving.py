"""A learner's checkpoints: saved when it can be, and never a reason to stop."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import structlog

from service.checkpoints import CheckpointStore
from service.forks import checkpoint_id, source
from warploom.algorithms.base import Algorithm
from warploom.errors import DataMissing, InvalidInput, Unavailable
from warploom.learner import LearnerState
from warploom.records import CheckpointInfo
from warploom.training import pack_state, unpack_state
from workers.context import JobContext

log = structlog.get_logger()
META = "meta.safetensors"
AGAIN_S = 5.0
TELL_S = 60.0

SNAPSHOT = "replay.snapshot"


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
        files = self._files(state)
        try:
            self._context.checkpoints.save(version, files, {"spec": self._context.spec.to_json()})
        except Unavailable as error:
            self._not_before = time.monotonic() + AGAIN_S
            self._complain(version, error.message)
            return False
        self._not_before = self._told = -TELL_S
        self._list(version, files[META])
        self._context.report("checkpoint", {"meta_step": version})
        return True

    def _list(self, version: int, meta: bytes) -> None:
        """Tell the job's record what is stored; while the state server is away, the next checkpoint does."""
        context, owner = self._context, self._context.assignment
        new = CheckpointInfo(
            id=checkpoint_id(owner.job_id, version),
            job=owner.job_id,
            step=version,
            created_at=time.time(),
            bytes=len(meta),
            sha256=hashlib.sha256(meta).hexdigest(),
        )
        try:
            stored = set(context.checkpoints.rounds()) - {version}
            listed = [one for one in context.jobs.checkpoints(owner.job_id) if one.step in stored] + [new]
            rows = [one.model_dump(mode="json") for one in sorted(listed, key=lambda one: one.step)]
            context.jobs.annotate(owner.job_id, owner.generation, checkpoints=rows)
        except Unavailable as error:
            log.warning("a checkpoint was not listed", meta_step=version, reason=error.message)

    def _files(self, state: LearnerState) -> dict[str, bytes]:
        """The learner's state, and the buffer where the spec asks for it and it answers."""
        files = pack_state(state)
        if wants_replay(self._context):
            try:
                files[SNAPSHOT] = self._context.replay.snapshot()
            except Unavailable as error:
                log.warning("a checkpoint goes without the replay", reason=error.message)
        return files

    def _complain(self, version: int, message: str) -> None:
        log.warning("checkpoint failed", job=self._context.assignment.job_id, meta_step=version, reason=message)
        if time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            self._context.report("checkpoint_failed", {"meta_step": version, "message": message})


def wants_replay(context: JobContext) -> bool:
    """Whether checkpoints of this job hold its buffer."""
    return context.spec.replay.checkpoint and context.spec.training.mode == "async"


def recall(context: JobContext) -> bytes | None:
    """The buffer in the last whole checkpoint, if it has it."""
    if not wants_replay(context):
        return None
    checkpoint = context.checkpoints.latest()
    return None if checkpoint is None else checkpoint.blobs.get(SNAPSHOT)


def load(context: JobContext) -> LearnerState | None:
    """The state of the last whole checkpoint, or None; those that are passed over are told.

    Raises:
        Unavailable: the storage does not answer.
    """

    def skipped(round: int, reason: str) -> None:
        context.report("checkpoint_skipped", {"meta_step": round, "message": reason})

    found = context.checkpoints.latest(skipped)
    return None if found is None else unpack_state(found.blobs)


def fork(context: JobContext, algorithm: Algorithm[Any]) -> LearnerState | None:
    """The state in the checkpoint that the job begins with; None when it begins anew.

    Raises:
        DataMissing: it is not stored any more, or not whole.
        InvalidInput: what is learned has other names or shapes.
        Unavailable: the storage does not answer.
    """
    given = context.spec.from_checkpoint
    if given is None:
        return None
    job_id, step = source(given)
    store = CheckpointStore.of(context.settings, job_id)
    found = store.latest() if step is None else store.read(step)
    if found is None:
        raise DataMissing(f"checkpoint {given} is not stored any more", field="/from_checkpoint", value=given)
    state = unpack_state(found.blobs)
    fresh = algorithm.init(context.spec.training.seed).params
    if {n: v.shape for n, v in fresh.items()} != {n: v.shape for n, v in state.meta.params.items()}:
        raise InvalidInput(
            f"/from_checkpoint: {given} holds other parameters than this job learns",
            field="/from_checkpoint",
            rule="the same names and shapes",
            value=given,
        )
    context.report("forked", {"from_checkpoint": given, "meta_step": state.meta.version})
    return state
