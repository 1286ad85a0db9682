"""The replay buffer's contract: units of work, who may do one, and when the learner may use them.

Rollouts and the learner see only `Replay`. `warploom.local_replay.LocalReplay` (one process) and
`service.replay.RedisReplay` (shared) keep the same promises and pass the same tests.

A *unit* is a fixed group of tasks with a running number; it is claimed, rolled out and stored as `parts` chunk blobs.

When a unit may be claimed or sampled is the limiter's matter (`warploom.replay_plan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from warploom.replay_plan import ReplayPlan

__all__ = ["Appended", "Chunk", "Replay", "ReplayPlan", "ReplayStats", "Side", "Unit", "UnitClaim"]

Appended = Literal["accepted", "duplicate", "wait"]
Side = Literal["learner", "rollouts"]


@dataclass(frozen=True, slots=True)
class UnitClaim:
    """The right to do `unit`, with the version that was current when it was given."""

    unit: int
    version: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part number `part` of the `parts` blobs of `unit`, collected under meta `version`.

    `priority`, above 0, is the unit's for sampler `prioritized`; that of the part that is stored first counts.
    """

    unit: int
    part: int
    parts: int
    version: int
    blob: bytes
    priority: float = 1.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A complete unit as the learner gets it.

    Args:
        number: its running number.
        version: the meta version that it was collected under.
        parts: its chunks, in order.
        weight: importance weight of its gradients, at most 1.
    """

    number: int
    version: int
    parts: list[bytes]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ReplayStats:
    """Counters since the last reset, and what is stored now.

    Args:
        version: current meta version; -1 before the first publish.
        units: complete units stored.
        bytes: bytes of all stored chunks.
        inserted: units that became complete.
        sampled: units handed to the learner.
        duplicates: chunks that were not needed any more.
        dropped_stale: units dropped for their version lag.
        rejected: chunks that contradict what is stored of their unit, and units that the learner could not read.
        waits: chunks that found no room.
        claims: units claimed and not complete.
        evicted: complete units dropped to make room (`when_full` "drop_oldest").
        blocked_learner_s: seconds that the learner waited for units.
        blocked_rollouts_s: seconds that rollouts waited for something to do or for room, summed over them.
    """

    version: int = -1
    units: int = 0
    bytes: int = 0
    inserted: int = 0
    sampled: int = 0
    duplicates: int = 0
    dropped_stale: int = 0
    rejected: int = 0
    waits: int = 0
    claims: int = 0
    evicted: int = 0
    blocked_learner_s: float = 0.0
    blocked_rollouts_s: float = 0.0

    @property
    def ratio(self) -> float:
        """Samples per insert so far; 0 before the first insert."""
        return self.sampled / self.inserted if self.inserted else 0.0


class Replay(Protocol):
    """What rollouts and the learner of one job share.

    Every method raises `Fenced` once a newer generation owns the job. A buffer that was never reset in this
    generation, or was lost with its server, is quiet for rollouts (`claim` and `meta` give None, `append` says
    "duplicate") and `Unavailable` for the learner (`publish`, `take_round`, `sample`), whose remedy is `reset`
    followed by `publish` of its current version.
    """

    def reset(self, version: int) -> None:
        """Drop everything stored and start at `version`; the learner calls it whenever it (re)starts.

        Rollouts get nothing to do until the next `publish`.

        Args:
            version: rounds already done; numbering goes on at unit `version * units_per_round`.

        Raises:
            Fenced: a newer generation owns the job.
        """
        ...

    def publish(self, version: int, blob: bytes) -> None:
        """Make `blob` the meta-state that rollouts fetch; in sync mode, end earlier rounds and open this one.

        Repeating the current version changes nothing.

        Args:
            version: rounds done; larger than any published since the reset.
            blob: the encoded meta-state.

        Raises:
            Conflict: an older version than the current one.
            Fenced: a newer generation owns the job.
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def claim(self, worker: str) -> UnitClaim | None:
        """The right to do one unit, or None when there is nothing to do now (see `done`).

        Units whose claim expired come first.

        Args:
            worker: a name that no other live worker has.
        """
        ...

    def renew(self, worker: str, unit: int) -> bool:
        """Extend the lease of a claim; False when the unit is no longer this worker's."""
        ...

    def done(self) -> bool:
        """Whether the last round is published, so that no unit will ever be given out again."""
        ...

    def meta(self, known: int) -> tuple[int, bytes] | None:
        """The current version and its blob, or None when it is not newer than `known` (use -1 for none)."""
        ...

    def append(self, chunk: Chunk) -> Appended:
        """Store one chunk of a claimed unit.

        Doing a unit under one version must always give the same chunks, whoever does it. A newer version of a unit
        that is not complete replaces the older one.

        Returns:
            "accepted": stored. "duplicate": not needed (stored already, unit complete, round over, or nobody holds
            a claim on the unit): go on. "wait": no room now, nothing stored: try again later.

        Raises:
            InvalidInput: the chunk contradicts itself or the other parts of its unit, or can never fit.
            Fenced: a newer generation owns the job.
        """
        ...

    def extend(self, chunks: Sequence[Chunk]) -> list[Appended]:
        """`append` for several chunks of one unit and version, in order and with fewer round trips.

        Returns:
            What `append` would say of each; after a "wait" the rest was not tried, so that the list may be shorter.

        Raises:
            InvalidInput: as `append`, or the chunks are not of one unit.
            Fenced: a newer generation owns the job.
        """
        ...

    def take_round(self, version: int) -> list[Unit] | None:
        """Sync: all units of round `version`, in unit order; None while any is incomplete.

        Args:
            version: the current version.

        Raises:
            Conflict: `version` is not the current one.
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def sample(self, n: int, seed: int) -> list[Unit] | None:
        """Async: `n` distinct complete units, chosen by the plan's sampler and `seed`; None while it must wait.

        Units that lag more than `max_staleness` versions are dropped first.

        Args:
            n: units, at least 1.
            seed: names the choice: equal seed and equal stored units give equal samples.

        Raises:
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def reject(self, unit: Unit) -> int:
        """Drop a unit that could not be read, and let it be done again; the use that was counted for it is taken back.

        Nothing changes but the count when somebody is at it already or its round is over.

        Returns:
            How often this unit was rejected since the reset.

        Raises:
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def snapshot(self) -> bytes:
        """Async: all complete units, the limiter's place and what is being done, while both sides go on.

        Units that are used up while it is taken are left out.

        Raises:
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def restore(self, snapshot: bytes) -> int:
        """Async: put a snapshot's units back between `reset` and `publish`; unfinished ones are claimed anew.

        Returns:
            Units put back; those for which there is no room are left out.

        Raises:
            Conflict: the buffer is published already.
            WireError: the bytes are damaged; nothing changed.
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def wait(self, side: Side, timeout_s: float) -> None:
        """Rest until something happened that may let this side go on, or for `timeout_s`, and count the time.

        What happened since this side's last rest counts too, so that a look followed by a rest misses nothing: a unit
        became complete (learner); a version, or room, or a unit to be done again (rollouts). A claim that runs out
        wakes nobody: `timeout_s` bounds how late it is seen.

        Args:
            side: who rests.
            timeout_s: at most 5.

        Raises:
            Unavailable: the server is away; or, for the learner, it is full, so that rollouts cannot go on.
        """
        ...

    def stats(self) -> ReplayStats:
        """Counters and sizes."""
        ...

    def close(self) -> None:
        """Delete everything of this job; later calls of rollouts are quiet."""
        ...
