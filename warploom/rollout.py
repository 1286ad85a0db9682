"""The rollout side of meta-training: claim a unit of tasks, adapt, store what it taught."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from warploom.algorithms.base import Algorithm
from warploom.codec import pack_experiences, unpack_meta
from warploom.guard import job_code
from warploom.replay import Chunk, Replay
from warploom.seeding import derive
from warploom.spec import JobSpec
from warploom.types import Experience, MetaState, TaskRef


def unit_refs(spec: JobSpec, unit: int) -> list[TaskRef]:
    """The tasks of a unit of work: unit u is the (u mod U)-th group of round u div U, U groups to a round.

    Groups are fixed by the spec and not by who works, so that the number of rollout actors changes nothing.
    """
    training = spec.training
    round_, group = divmod(unit, training.units_per_round)
    first = group * training.unit
    last = min(first + training.unit, training.meta_batch)
    return [TaskRef("train", round_ * training.meta_batch + i, training.seed) for i in range(first, last)]


def collect(algorithm: Algorithm[Any], spec: JobSpec, meta: MetaState, unit: int) -> list[Experience]:
    """What the tasks of a unit teach under `meta`; random by the job's seed and the tasks' numbers alone."""
    refs = unit_refs(spec, unit)
    tasks = algorithm.family.sample(refs)
    device = next(iter(meta.params.values())).device
    seeds = [derive(spec.training.seed, "rollout", ref.index) for ref in refs]
    return algorithm.rollout(meta, tasks.to(device), seeds=seeds)


def priority_of(experiences: Sequence[Experience]) -> float:
    """The mean support loss after adaptation, from 1e-6 to 1e6: what tasks were learned worst is sampled most.

    A unit without a finite loss has the least.
    """
    losses = [experience.metrics.get("support_loss", math.nan) for experience in experiences]
    finite = [loss for loss in losses if math.isfinite(loss)]
    return min(max(fmean(finite), 1e-6), 1e6) if finite else 1e-6


class RolloutLoop:
    """One rollout worker's life, a step at a time; the caller decides how to wait between steps.

    Args:
        algorithm, spec: the job.
        replay: the buffer.
        worker: a name for the claims.
        device: where to adapt.

    Attributes:
        unit: the unit in work, for whoever renews its claim; None between units.
        units_done: how many were stored.
    """

    def __init__(
        self, algorithm: Algorithm[Any], spec: JobSpec, replay: Replay, worker: str, device: str = "cpu"
    ) -> None:
        self._algorithm, self._spec, self._replay = algorithm, spec, replay
        self._worker, self._device = worker, device
        self._meta: MetaState | None = None
        self._pending: list[Chunk] = []
        self.units_done = 0
        self.unit: int | None = None

    def step(self) -> bool:
        """Store what is pending, or claim a unit and work on it; False when there is nothing to do now.

        Raises:
            Fenced: this worker was replaced.
        """
        if self._pending:
            return self._store()
        claim = self._replay.claim(self._worker)
        if claim is None:
            return False
        self.unit = claim.unit
        meta = self._refresh()
        if meta is None:
            return False
        with job_code(f"the rollout of unit {claim.unit}"):
            experiences = collect(self._algorithm, self._spec, meta, claim.unit)
        how = self._spec.replay
        blobs = pack_experiences(experiences, dtype=how.dtype, delta=how.delta, compression=how.compression)
        priority = priority_of(experiences)
        self._pending = [
            Chunk(unit=claim.unit, part=i, parts=len(blobs), version=meta.version, blob=blob, priority=priority)
            for i, blob in enumerate(blobs)
        ]
        self._store()
        return True

    def _refresh(self) -> MetaState | None:
        """The current meta-state, fetched if it moved; None when the buffer lost it."""
        known = -1 if self._meta is None else self._meta.version
        newer = self._replay.meta(known)
        if newer is not None:
            self._meta = unpack_meta(newer[1]).to(torch.device(self._device))
        return self._meta

    def _store(self) -> bool:
        """Append pending chunks until the buffer says wait."""
        answers = self._replay.extend(self._pending)
        self._pending = self._pending[sum(answer != "wait" for answer in answers) :]
        if self._pending:
            return False
        self.units_done += 1
        self.unit = None
        return True
