"""The replay buffer's contract: units of work, who may do one, and when the learner may use them.

Rollouts and the learner see only `Replay`. `LocalReplay` (in memory, one process) and `service.replay.RedisReplay`
(shared) keep the same promises and pass the same tests.

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
stored. The unit with number u leaves after max(1, ⌊(u+1)·s⌋ − ⌊u·s⌋) uses, which is s on average for s ≥ 1; for
s < 1 every sample also discards the oldest units, so that ⌊sampled/s⌋ units have left.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from warploom.errors import Conflict, InvalidInput, Unavailable

Appended = Literal["accepted", "duplicate", "wait"]


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

    def need(self, count: int) -> int:
        """Complete units that must be stored before a sample of `count` (async)."""
        return max(count, self.min_units, math.ceil(count / self.samples_per_insert - 1e-9))

    def uses(self, unit: int) -> int:
        """How often this unit is used before it leaves (async)."""
        rate = self.samples_per_insert
        return max(1, math.floor((unit + 1) * rate + 1e-9) - math.floor(unit * rate + 1e-9))

    @property
    def window(self) -> int:
        """Most units that are claimed or stored at one time."""
        if self.mode == "sync":
            return self.units_per_round
        return self.ahead * self.units_per_round * math.ceil(self.samples_per_insert)

    def check_unit_bytes(self, bytes_per_unit: int) -> None:
        """Refuse units that are so large that the buffer could not hold what a round (sync) or window (async) needs.

        Args:
            bytes_per_unit: size of all chunks of one unit, in bytes.

        Raises:
            InvalidInput: with the numbers, and the budget that would do.
        """
        needed = self.window * bytes_per_unit
        if needed > self.max_bytes:
            what = "a full round" if self.mode == "sync" else "the window"
            raise InvalidInput(
                f"{what} is {self.window} units of {bytes_per_unit} bytes = {needed} bytes, and the replay may hold "
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
}


@dataclass(frozen=True, slots=True)
class UnitClaim:
    """The right to do `unit`, with the version that was current when it was given."""

    unit: int
    version: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part number `part` of the `parts` blobs of `unit`, collected under meta `version`."""

    unit: int
    part: int
    parts: int
    version: int
    blob: bytes


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
        rejected: chunks that contradict what is stored of their unit.
        waits: chunks that found no room.
        claims: units claimed and not complete.
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

    def take_round(self, version: int) -> list[list[bytes]] | None:
        """Sync: the parts of all units of round `version`, in unit order; None while any is incomplete.

        Args:
            version: the current version.

        Raises:
            Conflict: `version` is not the current one.
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def sample(self, n: int, seed: int) -> list[list[bytes]] | None:
        """Async: the parts of `n` distinct complete units, chosen uniformly by `seed`; None while it must wait.

        Units that lag more than `max_staleness` versions are dropped first.

        Args:
            n: units, at least 1.
            seed: names the choice: equal seed and equal stored units give equal samples.

        Raises:
            Unavailable: the buffer was lost; reset it.
        """
        ...

    def stats(self) -> ReplayStats:
        """Counters and sizes."""
        ...

    def close(self) -> None:
        """Delete everything of this job; later calls of rollouts are quiet."""
        ...


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
    if len(chunk.blob) > plan.max_bytes:
        raise InvalidInput(
            f"a chunk of {len(chunk.blob)} bytes never fits into a replay of {plan.max_bytes}",
            field="blob",
            rule=f"at most {plan.max_bytes} bytes",
            value=len(chunk.blob),
        )


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


@dataclass(slots=True)
class _Unit:
    version: int
    parts: int
    blobs: dict[int, bytes] = field(default_factory=dict)
    uses: int = 0

    @property
    def complete(self) -> bool:
        return len(self.blobs) == self.parts

    @property
    def bytes(self) -> int:
        return sum(map(len, self.blobs.values()))


class LocalReplay:
    """The buffer in this process's memory; safe to share between threads.

    Args:
        plan: the buffer's settings.
        clock: seconds; tests give their own.
    """

    def __init__(self, plan: ReplayPlan, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._clock = clock
        self._lock = threading.RLock()
        self._forget(live=False, version=0)

    def _forget(self, *, live: bool, version: int) -> None:
        self._live = live
        self._base, self._version, self._taken = version, -1, -1
        self._first = self._next = self._open = version * self._plan.units_per_round
        self._blob = b""
        self._units: dict[int, _Unit] = {}
        self._claims: dict[int, tuple[str, float]] = {}
        self._counts: Counter[str] = Counter()
        self._returned = 0.0

    def reset(self, version: int) -> None:
        """See `Replay.reset`."""
        with self._lock:
            self._forget(live=True, version=version)

    def publish(self, version: int, blob: bytes) -> None:
        """See `Replay.publish`."""
        plan = self._plan
        with self._lock:
            self._need_buffer()
            if version == self._version:
                return
            if version < max(self._version, self._base):
                raise not_current(version, max(self._version, self._base))
            self._version, self._blob = version, blob
            if plan.mode == "sync":
                first = version * plan.units_per_round
                self._units = {unit: entry for unit, entry in self._units.items() if unit >= first}
                self._claims = {unit: held for unit, held in self._claims.items() if unit >= first}
                self._next = max(self._next, first)
                self._open = min(version + 1, plan.rounds) * plan.units_per_round

    def claim(self, worker: str) -> UnitClaim | None:
        """See `Replay.claim`."""
        with self._lock:
            if self._version < 0 or self.done():
                return None
            now = self._clock()
            expired = [unit for unit, (_, end) in self._claims.items() if end <= now]
            if expired:
                unit = min(expired)
            elif self._may_issue():
                unit = self._next
                self._next += 1
            else:
                return None
            self._claims[unit] = (worker, now + self._plan.lease_s)
            return UnitClaim(unit, self._version)

    def _may_issue(self) -> bool:
        plan = self._plan
        if plan.mode == "sync":
            return self._next < self._open
        ready = self._ready()
        outstanding = len(self._claims) + len(ready)
        if outstanding < plan.need(plan.units_per_round):
            return True
        rate, sampled = plan.samples_per_insert, self._counts["sampled"]
        credit = math.floor(sampled / rate + self._returned + 1e-9) + plan.ahead * plan.units_per_round
        demand = (plan.rounds - self._base) * plan.units_per_round - sampled
        used = sum(self._units[unit].uses for unit in ready)
        return self._next - self._first < credit and outstanding < plan.window and rate * outstanding - used < demand

    def renew(self, worker: str, unit: int) -> bool:
        """See `Replay.renew`."""
        with self._lock:
            if self._claims.get(unit, ("", 0.0))[0] != worker:
                return False
            self._claims[unit] = (worker, self._clock() + self._plan.lease_s)
            return True

    def done(self) -> bool:
        """See `Replay.done`."""
        return self._live and self._version >= self._plan.rounds

    def meta(self, known: int) -> tuple[int, bytes] | None:
        """See `Replay.meta`."""
        with self._lock:
            return (self._version, self._blob) if self._version > known else None

    def append(self, chunk: Chunk) -> Appended:
        """See `Replay.append`."""
        check_chunk(chunk, self._plan)
        with self._lock:
            if not self._live:
                return "duplicate"
            if not self._wanted(chunk):
                self._counts["duplicates"] += 1
                return "duplicate"
            if self._bytes() + len(chunk.blob) > self._plan.max_bytes:
                self._counts["waits"] += 1
                return "wait"
            entry = self._units.setdefault(chunk.unit, _Unit(chunk.version, chunk.parts))
            entry.blobs[chunk.part] = chunk.blob
            if entry.complete:
                del self._claims[chunk.unit]
                self._counts["inserted"] += 1
            return "accepted"

    def _wanted(self, chunk: Chunk) -> bool:
        plan, entry = self._plan, self._units.get(chunk.unit)
        # No claim: complete, round over, or given out before a reset. A later version: from before a reset.
        if chunk.unit not in self._claims or chunk.version > self._version:
            return False
        if entry and chunk.version < entry.version:
            return False
        if plan.mode == "sync" and chunk.version != self._version:
            return False
        stale = plan.mode == "async" and self._version - chunk.version > plan.max_staleness
        if stale:
            del self._claims[chunk.unit]
            self._give_back(1.0)
        if entry and (stale or chunk.version > entry.version):
            del self._units[chunk.unit]
        elif entry and chunk.parts != entry.parts:
            self._counts["rejected"] += 1
            raise other_parts(chunk, entry.parts)
        elif entry and chunk.part in entry.blobs:
            return False
        return not stale

    def take_round(self, version: int) -> list[list[bytes]] | None:
        """See `Replay.take_round`."""
        size = self._plan.units_per_round
        with self._lock:
            self._need_buffer()
            if version != self._version:
                raise not_current(version, self._version)
            ready = [unit for unit in self._ready() if version * size <= unit < (version + 1) * size]
            if len(ready) < size:
                return None
            if self._taken != version:
                self._taken = version
                self._counts["sampled"] += size
            return [self._read(unit) for unit in ready]

    def sample(self, n: int, seed: int) -> list[list[bytes]] | None:
        """See `Replay.sample`."""
        plan = self._plan
        with self._lock:
            self._need_buffer()
            for unit in self._ready():
                entry = self._units[unit]
                if self._version - entry.version > plan.max_staleness:
                    self._give_back(1 - entry.uses / plan.samples_per_insert)
                    del self._units[unit]
            ready = self._ready()
            if len(ready) < plan.need(n):
                return None
            chosen = random.Random(seed).sample(ready, n)  # noqa: S311
            blobs = [self._read(unit) for unit in chosen]
            self._count_sample(chosen)
            return blobs

    def _count_sample(self, chosen: list[int]) -> None:
        rate = self._plan.samples_per_insert
        for unit in chosen:
            self._units[unit].uses += 1
            self._counts["sampled"] += 1
            if self._units[unit].uses >= self._plan.uses(unit):
                del self._units[unit]
                self._counts["left"] += 1
        while rate < 1 and self._counts["left"] < math.floor(self._counts["sampled"] / rate + 1e-9):
            ready = self._ready()
            if not ready:
                break
            del self._units[ready[0]]
            self._counts["left"] += 1

    def stats(self) -> ReplayStats:
        """See `Replay.stats`."""
        names = ("inserted", "sampled", "duplicates", "dropped_stale", "rejected", "waits")
        with self._lock:
            return ReplayStats(
                version=self._version,
                units=len(self._ready()),
                bytes=self._bytes(),
                claims=len(self._claims),
                **{name: self._counts[name] for name in names},
            )

    def close(self) -> None:
        """See `Replay.close`."""
        with self._lock:
            self._forget(live=False, version=0)

    def _give_back(self, share: float) -> None:
        self._counts["dropped_stale"] += 1
        self._returned += share

    def _ready(self) -> list[int]:
        return sorted(unit for unit, entry in self._units.items() if entry.complete)

    def _bytes(self) -> int:
        return sum(entry.bytes for entry in self._units.values())

    def _read(self, unit: int) -> list[bytes]:
        entry = self._units[unit]
        return [entry.blobs[part] for part in range(entry.parts)]

    def _need_buffer(self) -> None:
        if not self._live:
            raise Unavailable("this replay was never reset, or is closed: reset it, then publish the current version")
