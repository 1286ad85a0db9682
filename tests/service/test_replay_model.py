"""Each replay buffer against a model of plain lists and dicts, which knows the contract and no implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.connection import Connections
from service.ids import new_id
from service.replay import RedisReplay
from tests.support.clock import FakeClock
from warploom.errors import Conflict
from warploom.local_replay import LocalReplay
from warploom.replay import Chunk, Replay, ReplayPlan
from warploom.samplers import Sampler

Make = Callable[[ReplayPlan, FakeClock], Replay]
LEASE_S = 10
PARTS = (1, 2)  # of even and odd units


class Model:
    """What a buffer owes: every unit used once, oldest first.

    Args:
        sync: rounds, or own pace with the sampler `fifo` and one sample per insert.
        size: units of a round.
        rounds, ahead, staleness, room: of the plan; room in bytes.
    """

    def __init__(self, *, sync: bool, size: int, rounds: int, ahead: int, staleness: int, room: int) -> None:
        self.sync, self.size, self.rounds = sync, size, rounds
        self.lead, self.staleness, self.room = ahead * size, staleness, room
        self.version, self.next, self.given_back = 0, 0, 0
        self.claims: dict[int, float] = {}  # unit -> end of its lease
        self.chunks: dict[int, dict[int, bytes]] = {}  # unit -> part -> blob
        self.versions: dict[int, int] = {}  # unit -> version of its chunks
        self.counts = dict.fromkeys(("inserted", "sampled", "duplicates", "waits", "dropped_stale"), 0)
        self.taken = -1

    def complete(self) -> list[int]:
        return sorted(unit for unit, parts in self.chunks.items() if len(parts) == PARTS[unit % 2])

    def bytes(self) -> int:
        return sum(len(blob) for parts in self.chunks.values() for blob in parts.values())

    def claim(self, now: float) -> int | None:
        if self.version >= self.rounds:
            return None
        expired = sorted(unit for unit, end in self.claims.items() if end <= now)
        if not expired and not self.may_begin():
            return None
        unit = expired[0] if expired else self.next
        self.next = max(self.next, unit + 1)
        self.claims[unit] = now + LEASE_S
        return unit

    def may_begin(self) -> bool:
        if self.sync:
            return self.next < (self.version + 1) * self.size
        outstanding = len(self.claims) + len(self.complete())
        if outstanding < self.size:
            return True
        left = self.rounds * self.size - self.counts["sampled"]
        credit = self.counts["sampled"] + self.given_back + self.lead
        return self.next < credit and outstanding < self.lead and outstanding < left

    def append(self, unit: int, part: int, version: int, blob: bytes) -> str:
        word = self.judged(unit, part, version, blob)
        if word == "accepted":
            self.versions[unit] = version
            self.chunks.setdefault(unit, {})[part] = blob
            if unit in self.complete():
                del self.claims[unit]
                self.counts["inserted"] += 1
        else:
            self.counts["duplicates" if word == "duplicate" else "waits"] += 1
        return word

    def judged(self, unit: int, part: int, version: int, blob: bytes) -> str:
        if unit not in self.claims or version > self.version or version < self.versions.get(unit, 0):
            return "duplicate"
        if self.sync and version != self.version:
            return "duplicate"
        if not self.sync and self.version - version > self.staleness:
            self.drop(unit)
            self.give_back()
            return "duplicate"
        if version > self.versions.get(unit, version):
            self.chunks.pop(unit)
            self.versions.pop(unit)
        if part in self.chunks.get(unit, {}):
            return "duplicate"
        return "accepted" if self.bytes() + len(blob) <= self.room else "wait"

    def drop(self, unit: int) -> None:
        for table in (self.claims, self.chunks, self.versions):
            table.pop(unit, None)

    def give_back(self) -> None:
        self.given_back += 1
        self.counts["dropped_stale"] += 1

    def publish(self, version: int) -> None:
        self.version = version
        if self.sync:
            for unit in [unit for unit in {*self.chunks, *self.claims} if unit < version * self.size]:
                self.drop(unit)
            self.next = max(self.next, version * self.size)

    def round(self) -> list[tuple[int, list[bytes]]] | None:
        units = [unit for unit in self.complete() if unit // self.size == self.version]
        if len(units) < self.size:
            return None
        if self.taken != self.version:
            self.taken = self.version
            self.counts["sampled"] += self.size
        return [self.read(unit) for unit in units]

    def sample(self, n: int) -> list[tuple[int, list[bytes]]] | None:
        for unit in self.complete():
            if self.version - self.versions[unit] > self.staleness:
                self.drop(unit)
                self.give_back()
        if len(self.complete()) < n:
            return None
        units = [self.read(unit) for unit in self.complete()[:n]]
        for unit, _ in units:
            self.drop(unit)
        self.counts["sampled"] += n
        return units

    def read(self, unit: int) -> tuple[int, list[bytes]]:
        return unit, [blob for _, blob in sorted(self.chunks[unit].items())]


class Against(RuleBasedStateMachine):
    """One buffer and the model, call by call."""

    make: Make

    @initialize(
        sync=st.booleans(),
        size=st.integers(1, 3),
        ahead=st.integers(1, 3),
        staleness=st.integers(0, 2),
        room=st.sampled_from([36, 10_000]),
    )
    def start(self, sync: bool, size: int, ahead: int, staleness: int, room: int) -> None:
        self.clock = FakeClock()
        self.model = Model(sync=sync, size=size, rounds=6, ahead=ahead, staleness=staleness, room=room)
        plan = ReplayPlan(
            mode="sync" if sync else "async",
            units_per_round=size,
            rounds=6,
            max_bytes=room,
            ahead=ahead,
            max_staleness=staleness,
            lease_s=LEASE_S,
            sampler=Sampler(name="uniform" if sync else "fifo"),
        )
        self.replay = type(self).make(plan, self.clock)
        self.replay.reset(0)
        self.replay.publish(0, b"meta")

    @rule()
    def claim(self) -> None:
        claim = self.replay.claim("w")
        assert (claim and claim.unit) == self.model.claim(self.clock())
        assert claim is None or claim.version == self.model.version

    @rule(data=st.data(), size=st.integers(0, 20), back=st.integers(-1, 3))
    def append(self, data: st.DataObject, size: int, back: int) -> None:
        unit = data.draw(st.integers(0, max(0, self.model.next - 1)))
        part = data.draw(st.integers(0, PARTS[unit % 2] - 1))
        version = max(0, self.model.version - back)
        self.both_append(unit, part, version, size)

    def both_append(self, unit: int, part: int, version: int, size: int) -> None:
        blob = bytes([unit, part, version]) * min(size, self.model.room // 3)
        said = self.replay.append(Chunk(unit, part, PARTS[unit % 2], version, blob))
        assert said == self.model.append(unit, part, version, blob)

    @precondition(lambda self: self.model.claims)
    @rule(which=st.integers(0, 9), size=st.integers(0, 6))
    def finish(self, which: int, size: int) -> None:
        units = sorted(self.model.claims)
        unit = units[which % len(units)]
        for part in range(PARTS[unit % 2]):
            self.both_append(unit, part, self.model.version, size)

    @rule(size=st.integers(0, 6))
    def work(self, size: int) -> None:
        self.claim()
        if self.model.claims:
            self.finish(0, size)

    @rule(seconds=st.integers(1, LEASE_S))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(step=st.sampled_from([0, 1, -1]))
    def publish(self, step: int) -> None:
        version = self.model.version + step
        if step < 0:
            with pytest.raises(Conflict):
                self.replay.publish(version, b"old")
            return
        self.replay.publish(version, b"%d" % version)
        self.model.publish(version)

    @rule(n=st.integers(1, 3))
    def use(self, n: int) -> None:
        model = self.model
        units = self.replay.take_round(model.version) if model.sync else self.replay.sample(n, 0)
        expected = model.round() if model.sync else model.sample(n)
        assert (None if units is None else [(unit.number, unit.parts) for unit in units]) == expected

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "model"):
            return
        stats, model = self.replay.stats(), self.model
        assert (stats.version, stats.units, stats.bytes) == (model.version, len(model.complete()), model.bytes())
        assert stats.claims == len(model.claims)
        assert {name: getattr(stats, name) for name in model.counts} == model.counts
        assert self.replay.done() == (model.version >= model.rounds)

    def teardown(self) -> None:
        if hasattr(self, "replay"):
            self.replay.close()


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_a_buffer_does_what_the_model_says(request: pytest.FixtureRequest, kind: str) -> None:
    if kind == "local":

        def make(plan: ReplayPlan, clock: FakeClock) -> Replay:
            return LocalReplay(plan, clock=clock)
    else:
        connections: Connections = request.getfixturevalue("connections")

        def make(plan: ReplayPlan, clock: FakeClock) -> Replay:
            return RedisReplay(connections, new_id("job"), 1, plan, clock=clock)

    class Bound(Against):
        pass

    Bound.make = staticmethod(make)  # type: ignore[assignment]
    most: dict[str, Any] = {"max_examples": 30, "stateful_step_count": 30}
    run_state_machine_as_test(Bound, settings=settings(**most, deadline=None, suppress_health_check=list(HealthCheck)))
