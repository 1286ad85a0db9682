"""The replay buffer's contract: units of work, who may do one, and when the learner may use them.

Rollouts and the learner see only `Replay`. `warploom.local_replay.LocalReplay` (one process) and
`service.replay.RedisReplay` (shared) keep the same promises and pass the same tests.

A *unit* is a fixed group of tasks with a running number; it is claimed, rolled out and stored as `parts` chunk blobs.

The limiter, applied before compute is spent (a claim is refused, never a finished unit):

    sync    a unit is given out when  next_unit < min(version + 1, rounds) · U
    async   a unit is given out when  next_unit − first < ⌊sampled / s + returned⌋ + ahead · U
                                 and  outstanding < ahead · U · ⌈s⌉
                                 and  s · outstanding − used < (rounds − version₀) · U − sampled
            or, so that no setting starves the learner, when  outstanding < need(U)

U = units per round, s = samples per insert, outstanding = claimed + stored units, used = uses of the stored units,
returned = the unused share (1 − uses/s) of the units that were dropped as stale, first = version₀ · U with version₀
the version of the last reset. A sample of n units waits until need(n) = max(n, min_units, ⌈n/s⌉) complete units are
stored. The unit with number u leaves after cap(u) uses:

    uniform, fifo, consuming, without_replacement   max(1, ⌊(u+1)·s⌋ − ⌊u·s⌋), which is s on average for s ≥ 1
    lifo, prioritized, fresh                        never by its uses
    any, with max_times_sampled                     max_times_sampled

Where uses alone do not make units leave at the rate of the samples (s < 1, and the last two lines), every sample also
discards the oldest units, so that ⌊sampled/s⌋ units have left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from warploom.errors import Conflict, InvalidInput
from warploom.samplers import EVEN, UNIFORM, Sampler

Appended = Literal["accepted", "duplicate", "wait"]
Side = Literal["learner", "rollouts"]
WhenFull = Literal["wait", "drop_oldest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """The settings of one job's buffer; a plan that would deadlock is refused when it is made.

    Args:
        mode: "sync" (rounds, reproducible) or "async" (own pace).
        units_per_round: units in one round; also the size of the learner's sample.
        rounds: rounds of the whole job.
        max_bytes: hard budget of the stored chunks, in bytes.
        samples_per_insert: async: how often a unit is used, on average.
        min_units: async: complete units before the first sample.
        ahead: async: rounds of units that rollouts may be ahead.
        max_staleness: async: versions that a stored unit may lag behind.
        lease_s: seconds after which a claim that was not renewed is handed out again.
        max_rejections: so many times may a unit turn out unreadable before the job fails.
        sampler: async: which units a sample gets.
        max_times_sampled: async: most uses of a unit; None for what the table above says.
        max_units: hard budget of stored units, complete or not; None for bytes alone.
        when_full: async: "wait" (writers wait) or "drop_oldest" (the oldest complete units go).

    Raises:
        InvalidInput: a value out of range, or a plan in which both sides would wait for ever.
    """

    mode: Literal["sync", "async"]
    units_per_round: int
    rounds: int
    max_bytes: int
    samples_per_insert: float = 1.0
    min_units: int = 1
    ahead: int = 2
    max_staleness: int = 8
    lease_s: float = 30.0
    max_rejections: int = 3
    sampler: Sampler = UNIFORM
    max_times_sampled: int | None = None
    max_units: int | None = None
    when_full: WhenFull = "wait"

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InvalidInput(
                    f"replay: {name} is {value}", field=f"/replay/{name}", rule=f"at least {least}", value=value
                )
        if self.mode not in ("sync", "async"):
            raise InvalidInput(
                f"replay: mode is {self.mode!r}", field="/replay/mode", rule="sync or async", value=self.mode
            )
        if not 0 < self.samples_per_insert < math.inf:
            raise InvalidInput(
                f"replay: samples_per_insert is {self.samples_per_insert}",
                field="/replay/samples_per_insert",
                rule="above 0 and finite",
                value=self.samples_per_insert,
            )
        if self.mode == "async":
            self._check_window()
            self._check_sampler()
            self._check_items(self.need(self.units_per_round))
            return
        self._check_items(self.units_per_round)
        if self.when_full != "wait":
            raise InvalidInput(
                "a sync round needs every unit of its round, so that none may be dropped",
                field="/replay/when_full",
                rule="wait in sync mode",
                value=self.when_full,
            )
        if self.sampler.name != "uniform" or self.max_times_sampled is not None:
            raise InvalidInput(
                "a sync round uses every unit of its round once: samplers and max_times_sampled are for async mode",
                field="/replay/sampler",
                rule="uniform in sync mode",
                value=self.sampler.name,
            )

    def _check_window(self) -> None:
        lead = self.ahead * self.units_per_round
        if self.min_units > lead:
            raise InvalidInput(
                f"the learner would wait for {self.min_units} units while rollouts stop at {lead} "
                f"(ahead {self.ahead} x {self.units_per_round} units per round): both would wait for ever",
                field="/replay/min_units",
                rule=f"at most ahead * units_per_round = {lead}",
                value=self.min_units,
            )
        if self.need(self.units_per_round) > lead:
            raise InvalidInput(
                f"with {self.samples_per_insert} samples per insert a sample of {self.units_per_round} units needs "
                f"{self.need(self.units_per_round)} stored units while rollouts stop at {lead}: both would wait for "
                "ever",
                field="/replay/ahead",
                rule=f"at least {-(-self.need(self.units_per_round) // self.units_per_round)}",
                value=self.ahead,
            )

    def _check_items(self, needed: int) -> None:
        if self.max_units is not None and self.max_units < needed:
            raise InvalidInput(
                f"the learner waits for {needed} units while the buffer may hold {self.max_units}: both would wait for "
                "ever",
                field="/replay/max_trajectories",
                rule=f"at least {needed} units",
                value=self.max_units,
            )

    def _check_sampler(self) -> None:
        most = 1 if self.sampler.name == "consuming" else self.max_times_sampled
        if most is not None and most < self.samples_per_insert:
            raise InvalidInput(
                f"{self.samples_per_insert:g} samples per insert of units that leave after {most} uses: the learner "
                "would use up what rollouts may insert, and both would wait for ever",
                field="/replay/max_times_sampled",
                rule=f"at least samples_per_insert = {self.samples_per_insert:g}",
                value=most,
            )

    def need(self, count: int) -> int:
        """Complete units that must be stored before a sample of `count` (async)."""
        return max(count, self.min_units, math.ceil(count / self.samples_per_insert - 1e-9))

    def uses(self, unit: int) -> int:
        """How often this unit is used before it leaves (async)."""
        rate = self.samples_per_insert
        return max(1, math.floor((unit + 1) * rate + 1e-9) - math.floor(unit * rate + 1e-9))

    def cap(self, unit: int) -> int:
        """Uses after which this unit leaves; 0 for never (async)."""
        if self.max_times_sampled is not None:
            return self.max_times_sampled
        return self.uses(unit) if self.sampler.name in EVEN else 0

    @property
    def ages(self) -> bool:
        """Whether samples discard the oldest units (async)."""
        return self.samples_per_insert < 1 or self.max_times_sampled is not None or self.sampler.name not in EVEN

    @property
    def window(self) -> int:
        """Most units that are claimed or stored at one time."""
        if self.mode == "sync":
            return self.units_per_round
        most = self.ahead * self.units_per_round * math.ceil(self.samples_per_insert)
        bounded = self.max_units is not None and self.when_full == "wait"
        return min(most, self.max_units or most) if bounded else most

    def check_unit_bytes(self, bytes_per_unit: int) -> None:
        """Refuse units that are so large that the buffer could not hold what a round (sync) or window (async) needs.

        Args:
            bytes_per_unit: size of all chunks of one unit, in bytes.

        Raises:
            InvalidInput: with the numbers, and the budget that would do.
        """
        drops = self.when_full == "drop_oldest"
        units = self.need(self.units_per_round) if drops else self.window
        needed = units * bytes_per_unit
        if needed > self.max_bytes:
            what = "a full round" if self.mode == "sync" else "a sample" if drops else "the window"
            raise InvalidInput(
                f"{what} is {units} units of {bytes_per_unit} bytes = {needed} bytes, and the replay may hold "
                f"{self.max_bytes}: rollouts would wait for ever; raise replay.max_bytes, record fewer points, or "
                "use smaller rounds",
                field="/replay/max_bytes",
                rule=f"at least {needed}",
                value=self.max_bytes,
            )


_LEAST = {
    "units_per_round": 1,
    "rounds": 0,
    "max_bytes": 1,
    "min_units": 1,
    "ahead": 1,
    "max_staleness": 0,
    "lease_s": 0.001,
    "max_rejections": 1,
}


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
        """
        ...

    def stats(self) -> ReplayStats:
        """Counters and sizes."""
        ...

    def close(self) -> None:
        """Delete everything of this job; later calls of rollouts are quiet."""
        ...


def published_already(version: int) -> Conflict:
    """The error for a snapshot that comes too late."""
    return Conflict("a snapshot is restored between reset and publish", field="version", rule="-1", value=version)


def check_chunk(chunk: Chunk, plan: ReplayPlan) -> None:
    """Refuse a chunk that contradicts itself or could never be stored.

    Raises:
        InvalidInput: with the member at fault.
    """
    if not 0 <= chunk.part < chunk.parts:
        raise InvalidInput(
            f"part {chunk.part} of {chunk.parts}", field="part", rule=f"0 to {chunk.parts - 1}", value=chunk.part
        )
    if min(chunk.unit, chunk.version) < 0:
        raise InvalidInput("unit and version count from 0", field="unit", rule="at least 0", value=chunk.unit)
    if not 0 < chunk.priority < math.inf:
        raise InvalidInput(
            f"priority {chunk.priority}", field="priority", rule="above 0 and finite", value=chunk.priority
        )
    if len(chunk.blob) > plan.max_bytes:
        raise InvalidInput(
            f"a chunk of {len(chunk.blob)} bytes never fits into a replay of {plan.max_bytes}",
            field="blob",
            rule=f"at most {plan.max_bytes} bytes",
            value=len(chunk.blob),
        )


def check_unit(chunks: Sequence[Chunk], plan: ReplayPlan) -> None:
    """Refuse chunks that are not of one unit, or one that could never be stored.

    Raises:
        InvalidInput: with the member at fault.
    """
    if len({(chunk.unit, chunk.parts, chunk.version) for chunk in chunks}) > 1:
        raise InvalidInput("chunks of several units or versions", field="chunks", rule="of one unit and version")
    for chunk in chunks:
        check_chunk(chunk, plan)


def not_current(version: int, current: int) -> Conflict:
    """The error for a call that is about another version than the current one."""
    return Conflict(
        f"version {version} is not the current one ({current})", field="version", rule=f"{current}", value=version
    )


def other_parts(chunk: Chunk, parts: int) -> InvalidInput:
    """The error for a chunk that disagrees with its unit's first one."""
    return InvalidInput(
        f"unit {chunk.unit} has {parts} parts, not {chunk.parts}", field="parts", rule=f"{parts}", value=chunk.parts
    )
