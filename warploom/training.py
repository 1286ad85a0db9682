"""The learner's loop over a replay buffer, the same in one process, in an actor, and in a data-parallel group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from warploom.algorithms.base import Algorithm
from warploom.codec import pack_meta, pack_tensors, unpack_experiences, unpack_meta, unpack_tensors
from warploom.errors import ReplayCorrupt, Unavailable, WireError
from warploom.learner import LearnerState, alone, learn_round
from warploom.outer import OuterState
from warploom.replay import Replay, Unit
from warploom.rollout import unit_refs
from warploom.seeding import derive
from warploom.spec import JobSpec
from warploom.types import Experience, Gradient, Tensors

Report = Callable[[str, dict[str, Any]], None]
Units = list[Unit]


class Group(Protocol):
    """How the learners of one job act together."""

    @property
    def rank(self) -> int:
        """This learner's number."""
        ...

    @property
    def world(self) -> int:
        """How many learners there are."""
        ...

    def combine(self, gradient: Gradient) -> Tensors:
        """The weighted mean of all learners' gradients."""
        ...

    def share(self, units: Units | None) -> Units | None:
        """What learner 0 took from the buffer, on every learner."""
        ...


@dataclass(frozen=True)
class Alone:
    """A group of one."""

    rank: int = 0
    world: int = 1

    def combine(self, gradient: Gradient) -> Tensors:
        """The gradient itself."""
        return alone(gradient)

    def share(self, units: Units | None) -> Units | None:
        """The units themselves."""
        return units


def pack_state(state: LearnerState) -> dict[str, bytes]:
    """A learner's state as the files of a checkpoint."""
    outer = {f"m/{name}": value for name, value in state.outer.first.items()}
    outer |= {f"v/{name}": value for name, value in state.outer.second.items()}
    header = {"count": state.outer.count, "dropped": state.dropped, "bad_in_a_row": state.bad_in_a_row}
    return {"meta.safetensors": pack_meta(state.meta), "outer.safetensors": pack_tensors("outer", outer, header)}


def unpack_state(files: Mapping[str, bytes]) -> LearnerState:
    """The learner's state in the files of a checkpoint."""
    tensors, header = unpack_tensors("outer", files["outer.safetensors"])
    first = {name[2:]: value for name, value in tensors.items() if name.startswith("m/")}
    second = {name[2:]: value for name, value in tensors.items() if name.startswith("v/")}
    count = {name: int(n) for name, n in header["count"].items()}
    meta, outer = unpack_meta(files["meta.safetensors"]), OuterState(first, second, count)
    return LearnerState(meta, outer, header["dropped"], header["bad_in_a_row"])


def read_unit(spec: JobSpec, unit: Unit) -> list[Experience]:
    """The experiences of a stored unit of this job.

    Raises:
        WireError: corrupt, or of another job, unit or version.
    """
    experiences = unpack_experiences(unit.parts)
    found = [(experience.ref, experience.version) for experience in experiences]
    if found != [(ref, unit.version) for ref in unit_refs(spec, unit.number)]:
        raise WireError(f"unit {unit.number} of version {unit.version} holds other tasks or versions: {found[:3]}")
    return experiences


class LearnerLoop:
    """One learner's life, a round at a time; the caller decides how to wait between steps.

    Args:
        algorithm, spec: the job.
        replay: the buffer; only learner 0 of a group talks to it.
        state: where to go on from.
        report: called with the kind and the data of each event.
        checkpoint: called with the state every `checkpoint_every` rounds and at the end; when it says False, after the
            next round too.
        group: the learners that work together.
        recall: the last snapshot of the buffer, for when it is opened anew.
        dropped: called by learner 0 for each meta-gradient that is dropped because it is not finite.
    """

    def __init__(
        self,
        algorithm: Algorithm[Any],
        spec: JobSpec,
        replay: Replay,
        state: LearnerState,
        *,
        report: Report,
        checkpoint: Callable[[LearnerState], bool],
        group: Group | None = None,
        recall: Callable[[], bytes | None] = lambda: None,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._algorithm, self._spec, self._replay = algorithm, spec, replay
        self._report, self._checkpoint = report, checkpoint
        self._group = group or Alone()
        self._recall = recall
        self._dropped = dropped if self._group.rank == 0 else lambda: None
        self._since = time.perf_counter()
        self._unsaved = False
        self.state = state

    @property
    def done(self) -> bool:
        """Whether all rounds are done."""
        return self.state.meta.version >= self._spec.training.rounds

    def start(self) -> None:
        """Empty the buffer and open it at the state's version."""
        if self._group.rank == 0:
            self._replay.reset(self.state.meta.version)
            self._refill()
            self._replay.publish(self.state.meta.version, pack_meta(self.state.meta))

    def _refill(self) -> None:
        """Put back what the last checkpoint holds of the buffer; without it rollouts collect anew."""
        snapshot = self._recall()
        if snapshot is None:
            return
        try:
            units = self._replay.restore(snapshot)
        except WireError as error:
            self._report("warning", {"message": f"the checkpoint of the replay is left out: {error.message}"})
        else:
            self._report("replay_restored", {"units": units})

    def reopen(self) -> None:
        """Go on after the buffer did not answer: it may have lost everything, or only the last word.

        Raises:
            Unavailable: it still does not answer.
        """
        try:
            self._replay.publish(self.state.meta.version, pack_meta(self.state.meta))
        except Unavailable:
            self.start()

    def step(self) -> bool:
        """One round; False when the buffer does not hold enough for it yet.

        Raises:
            TrainingFailed: non-finite gradients.
            ReplayCorrupt: a unit was unreadable `replay.max_rejections` times.
            Fenced: this learner was replaced.
        """
        units = self._group.share(self._take() if self._group.rank == 0 else None)
        if units is None:
            return False
        experiences, bad = self._read(units)
        if bad and self._group.rank == 0:
            self._reject(bad)
        if bad and (self._spec.training.mode == "sync" or not experiences):
            return False  # until another claim has done them again
        before = self.state
        self.state, metrics = learn_round(
            self._algorithm,
            before,
            experiences,
            seed=self._spec.training.seed,
            scale=self._spec.training.step_scale(before.meta.version),
            rank=self._group.rank,
            world=self._group.world,
            combine=self._group.combine,
            max_bad=self._spec.training.max_bad_updates,
            dropped=self._dropped,
        )
        if self._group.rank == 0:
            self._publish(before, experiences, metrics)
        return True

    def _take(self) -> Units | None:
        version = self.state.meta.version
        if self._spec.training.mode == "sync":
            return self._replay.take_round(version)
        seed = derive(self._spec.training.seed, "sample", version)
        return self._replay.sample(self._spec.training.units_per_round, seed)

    def _read(self, units: Units) -> tuple[list[Experience], list[tuple[Unit, WireError]]]:
        """The experiences of all readable units, and the others with what is wrong with them."""
        experiences: list[Experience] = []
        bad = []
        for unit in units:
            try:
                experiences += [replace(one, weight=unit.weight) for one in read_unit(self._spec, unit)]
            except WireError as error:
                bad.append((unit, error))
        return experiences, bad

    def _reject(self, bad: list[tuple[Unit, WireError]]) -> None:
        most = self._spec.replay.max_rejections
        for unit, error in bad:
            times = self._replay.reject(unit)
            self._report("rejected", {"unit": unit.number, "times": times, "message": error.message})
            if times >= most:
                raise ReplayCorrupt(
                    f"unit {unit.number} of stored experience was unreadable {times} times, and replay.max_rejections "
                    f"is {most}; last: {error.message}",
                    field="/replay/max_rejections",
                    rule=f"fewer than {most} times",
                    value=times,
                )

    def _publish(self, before: LearnerState, experiences: list[Experience], metrics: dict[str, float]) -> None:
        training, meta = self._spec.training, self.state.meta
        # Before the checkpoint: a run that goes on from there does not tell this round again.
        self._tell(before, experiences, metrics)
        if self._unsaved or meta.version % training.checkpoint_every == 0 or self.done:
            self._unsaved = not self._checkpoint(self.state)
        self._replay.publish(meta.version, pack_meta(meta))

    def _tell(self, before: LearnerState, experiences: list[Experience], metrics: dict[str, float]) -> None:
        training, meta = self._spec.training, self.state.meta
        if self.state.dropped > before.dropped:
            lost = self.state.dropped - before.dropped
            self._report("warning", {"message": f"{lost} non-finite meta-gradients dropped in round {meta.version}"})
        now = time.perf_counter()
        lag = [before.meta.version - experience.version for experience in experiences]
        self._report(
            "round",
            {
                "meta_step": meta.version,
                "total": training.rounds,
                "tasks_done": meta.version * training.meta_batch,
                "seconds": now - self._since,
                "staleness": sum(lag) / len(lag) if lag else 0.0,
                **self._stored(),
                "dropped": self.state.dropped,
                "repeats": len(experiences) - len({(one.ref, one.version) for one in experiences}),
                **metrics,
            },
        )
        self._since = now

    def _stored(self) -> dict[str, float]:
        """What the buffer holds; nothing while it does not answer, because the round is done all the same."""
        try:
            stored = self._replay.stats()
        except Unavailable:
            return {}
        return {
            "replay_units": stored.units,
            "replay_bytes": stored.bytes,
            "rejected": stored.rejected,
            "evicted": stored.evicted,
            "dropped_stale": stored.dropped_stale,
            "samples_per_insert": stored.ratio,
            "blocked_learner_s": stored.blocked_learner_s,
            "blocked_rollouts_s": stored.blocked_rollouts_s,
        }
