"""The replay buffer in memory, for one process: the twin of the one on Redis, under the same tests."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from warploom.errors import Unavailable
from warploom.replay import Appended, Chunk, ReplayPlan, ReplayStats, Side, Unit, UnitClaim
from warploom.replay_checks import check_chunk, check_unit, not_current, other_parts, published_already
from warploom.samplers import Pick, Stored, choose
from warploom.snapshots import Cursor, Snapshot, pack, unpack


@dataclass(slots=True)
class _Unit:
    version: int
    parts: int
    blobs: dict[int, bytes] = field(default_factory=dict)
    priority: float = 1.0
    uses: int = 0
    epoch: int = 0

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
        self._changed = threading.Condition(self._lock)
        self._ticks: Counter[Side] = Counter()
        self._seen: dict[tuple[Side, int], int] = {}
        self._forget(live=False, version=0)

    def _forget(self, *, live: bool, version: int) -> None:
        self._live = live
        self._base, self._version, self._taken = version, -1, -1
        self._first = self._next = self._open = version * self._plan.units_per_round
        self._blob = b""
        self._units: dict[int, _Unit] = {}
        self._claims: dict[int, tuple[str, float]] = {}
        self._counts: Counter[str] = Counter()
        self._bad: Counter[int] = Counter()
        self._epoch = 1
        self._blocked: dict[Side, float] = {"learner": 0.0, "rollouts": 0.0}
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
            self._wake("rollouts")
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
            if not self._room(chunk):
                self._counts["waits"] += 1
                return "wait"
            entry = self._units.setdefault(chunk.unit, _Unit(chunk.version, chunk.parts, priority=chunk.priority))
            entry.blobs[chunk.part] = chunk.blob
            if entry.complete:
                del self._claims[chunk.unit]
                self._counts["inserted"] += 1
                self._wake("learner")
            return "accepted"

    def _room(self, chunk: Chunk) -> bool:
        """Whether the chunk fits, once the oldest were dropped where the plan says so."""
        plan = self._plan
        while True:
            units = len(self._units) + (chunk.unit not in self._units)
            fits = self._bytes() + len(chunk.blob) <= plan.max_bytes
            if fits and (plan.max_units is None or units <= plan.max_units):
                return True
            ready = self._ready()
            if plan.when_full == "wait" or not ready:
                return False
            self._returned += 1 - self._units[ready[0]].uses / plan.samples_per_insert
            self._counts["evicted"] += 1
            del self._units[ready[0]]

    def extend(self, chunks: Sequence[Chunk]) -> list[Appended]:
        """See `Replay.extend`."""
        check_unit(chunks, self._plan)
        answers: list[Appended] = []
        with self._lock:
            for chunk in chunks:
                answers.append(self.append(chunk))
                if answers[-1] == "wait":
                    break
        return answers

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

    def take_round(self, version: int) -> list[Unit] | None:
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

    def sample(self, n: int, seed: int) -> list[Unit] | None:
        """See `Replay.sample`."""
        plan = self._plan
        with self._lock:
            self._need_buffer()
            for unit in self._ready():
                entry = self._units[unit]
                if self._version - entry.version > plan.max_staleness:
                    self._give_back(1 - entry.uses / plan.samples_per_insert)
                    del self._units[unit]
                    self._wake("rollouts")
            ready = self._ready()
            if len(ready) < plan.need(n):
                return None
            stored = [self._stored(unit) for unit in ready]
            picks, self._epoch = choose(plan.sampler, stored, n, seed=seed, version=self._version, epoch=self._epoch)
            units = [replace(self._read(pick.stored.unit), weight=pick.weight) for pick in picks]
            self._count_sample(picks)
            self._wake("rollouts")
            return units

    def _count_sample(self, picks: list[Pick]) -> None:
        plan = self._plan
        for pick in picks:
            entry = self._units[pick.stored.unit]
            entry.uses += 1
            entry.epoch = pick.epoch
            self._counts["sampled"] += 1
            if entry.uses == plan.cap(pick.stored.unit):
                del self._units[pick.stored.unit]
                self._counts["left"] += 1
        due = math.floor(self._counts["sampled"] / plan.samples_per_insert + 1e-9) if plan.ages else 0
        for unit in self._ready()[: max(0, due - self._counts["left"])]:
            del self._units[unit]
            self._counts["left"] += 1

    def _stored(self, unit: int) -> Stored:
        entry = self._units[unit]
        return Stored(unit, entry.version, entry.parts, entry.uses, entry.priority, entry.epoch)

    def reject(self, unit: Unit) -> int:
        """See `Replay.reject`."""
        number = unit.number
        with self._lock:
            self._need_buffer()
            self._counts["rejected"] += 1
            self._bad[number] += 1
            entry = self._units.get(number)
            over = self._plan.mode == "sync" and (entry is None or unit.version != self._version)
            if number in self._claims or over or (entry and entry.version != unit.version):
                return self._bad[number]
            if self._units.pop(number, None) is None:
                self._counts["left"] -= 1
            if self._plan.mode == "async":
                self._counts["sampled"] -= 1
            self._claims[number] = ("", -math.inf)
            self._wake("rollouts")
            return self._bad[number]

    def snapshot(self) -> bytes:
        """See `Replay.snapshot`."""
        with self._lock:
            self._need_buffer()
            ready = self._ready()
            counts = {name: self._counts[name] for name in ("sampled", "inserted", "left")}
            cursor = Cursor(
                self._version, self._base, self._first, self._next, **counts, returned=self._returned, epoch=self._epoch
            )
            units = [(self._stored(unit), self._read(unit).parts) for unit in ready]
            return pack(Snapshot(cursor, units, sorted(self._claims)))

    def restore(self, snapshot: bytes) -> int:
        """See `Replay.restore`."""
        found = unpack(snapshot)
        with self._lock:
            self._need_buffer()
            if self._version >= 0:
                raise published_already(self._version)
            cursor = found.cursor.moved(self._base, self._plan)
            self._base, self._first, self._next = cursor.base, cursor.first, cursor.next
            self._returned, self._epoch = cursor.returned, cursor.epoch
            for name in ("sampled", "inserted", "left"):
                self._counts[name] = getattr(cursor, name)
            self._claims = dict.fromkeys(found.claimed, ("", -math.inf))
            for stored, blobs in found.units:
                if self._bytes() + sum(map(len, blobs)) <= self._plan.max_bytes:
                    entry = _Unit(stored.version, stored.parts, dict(enumerate(blobs)), stored.priority, stored.uses)
                    entry.epoch = stored.epoch
                    self._units[stored.unit] = entry
            return len(self._units)

    def wait(self, side: Side, timeout_s: float) -> None:
        """See `Replay.wait`."""
        who = (side, threading.get_ident())
        started = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._ticks[side] > self._seen.get(who, 0), timeout_s)
            self._seen[who] = self._ticks[side]
            self._blocked[side] += time.monotonic() - started

    def _wake(self, side: Side) -> None:
        self._ticks[side] += 1
        self._changed.notify_all()

    def stats(self) -> ReplayStats:
        """See `Replay.stats`."""
        names = ("inserted", "sampled", "duplicates", "dropped_stale", "rejected", "waits", "evicted")
        with self._lock:
            return ReplayStats(
                version=self._version,
                units=len(self._ready()),
                bytes=self._bytes(),
                claims=len(self._claims),
                blocked_learner_s=self._blocked["learner"],
                blocked_rollouts_s=self._blocked["rollouts"],
                **{name: self._counts[name] for name in names},
            )

    def close(self) -> None:
        """See `Replay.close`."""
        with self._lock:
            self._forget(live=False, version=0)
            self._wake("learner")
            self._wake("rollouts")

    def _give_back(self, share: float) -> None:
        self._counts["dropped_stale"] += 1
        self._returned += share

    def _ready(self) -> list[int]:
        return sorted(unit for unit, entry in self._units.items() if entry.complete)

    def _bytes(self) -> int:
        return sum(entry.bytes for entry in self._units.values())

    def _read(self, unit: int) -> Unit:
        entry = self._units[unit]
        return Unit(unit, entry.version, [entry.blobs[part] for part in range(entry.parts)])

    def _need_buffer(self) -> None:
        if not self._live:
            raise Unavailable("this replay was never reset, or is closed: reset it, then publish the current version")
