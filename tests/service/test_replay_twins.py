"""The two replay buffers in lockstep, and both against simple laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, get_args

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
from warploom.errors import WarploomError
from warploom.local_replay import LocalReplay
from warploom.replay import Chunk, ReplayPlan
from warploom.samplers import Sampler, SamplerName
from warploom.snapshots import unpack


class Twins(RuleBasedStateMachine):
    """Every call goes to both; answers and counters must agree."""

    connections: ClassVar[Connections]

    @initialize(
        mode=st.sampled_from(["sync", "async"]),
        size=st.integers(1, 3),
        ahead=st.integers(1, 3),
        rate=st.sampled_from([0.5, 1.0, 1.5, 3.0]),
        staleness=st.integers(0, 2),
        budget=st.sampled_from([40, 10_000]),
        version=st.integers(0, 2),
        name=st.sampled_from(get_args(SamplerName)),
        most=st.sampled_from([None, 3]),
        items=st.sampled_from([None, 6]),
        drops=st.booleans(),
    )
    def start(
        self, mode: Any, size: int, ahead: int, rate: float, staleness: int, budget: int, version: int, name: Any,
        most: int | None, items: int | None, drops: bool,
    ) -> None:  # fmt: skip
        self.clock = FakeClock()
        if mode == "sync" or (name == "consuming" and rate > 1):
            name = "uniform"
        self.plan = ReplayPlan(
            mode=mode,
            units_per_round=size,
            rounds=6,
            max_bytes=budget,
            samples_per_insert=rate,
            ahead=max(ahead, 2),
            max_staleness=staleness,
            sampler=Sampler(name=name, priority_exponent=1.0),
            max_times_sampled=most if mode == "async" else None,
            max_units=items,
            when_full="drop_oldest" if drops and mode == "async" else "wait",
            lease_s=10,
        )
        self.local = LocalReplay(self.plan, clock=self.clock)
        self.redis = RedisReplay(self.connections, new_id("job"), 1, self.plan, clock=self.clock)
        self.version = version
        self.held: dict[int, int] = {}
        self.completed: set[int] = set()
        self.both("reset", version)
        self.both("publish", version, b"meta")

    def both(self, name: str, *args: Any) -> Any:
        def outcome(replay: Any) -> Any:
            try:
                return getattr(replay, name)(*args)
            except WarploomError as error:
                return type(error), error.field

        local, remote = outcome(self.local), outcome(self.redis)
        assert local == remote, f"{name}{args}"
        return local

    @rule(worker=st.sampled_from(["a", "b"]))
    def claim(self, worker: str) -> None:
        claim = self.both("claim", worker)
        if claim is not None:
            assert claim.unit not in self.completed, "a complete unit was given out again"
            assert claim.version == self.version
            self.held[claim.unit] = claim.version

    @precondition(lambda self: self.held)
    @rule(data=st.data(), parts=st.integers(1, 2), size=st.integers(0, 20))
    def append(self, data: st.DataObject, parts: int, size: int) -> None:
        unit = data.draw(st.sampled_from(sorted(self.held)))
        part = data.draw(st.integers(0, parts - 1))
        version = data.draw(st.integers(max(0, self.held[unit] - 1), self.version + 1))
        before = self.local.stats()
        chunk = Chunk(unit, part, parts, version, bytes([unit % 256]) * size, 1.0 + size)
        whole = [chunk] if data.draw(st.booleans()) else [replace(chunk, part=i) for i in range(parts)]
        answers = self.both("extend", whole)
        said = answers[-1] if isinstance(answers, list) else answers
        after = self.local.stats()
        if said == "accepted" and after.inserted > before.inserted:
            assert unit not in self.completed
            self.completed.add(unit)
        if said == "wait":
            assert after.units == before.units and after.bytes <= before.bytes

    @rule(worker=st.sampled_from(["a", "b"]), unit=st.integers(0, 20))
    def renew(self, worker: str, unit: int) -> None:
        self.both("renew", worker, unit)

    @rule(seconds=st.integers(1, 11))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(step=st.integers(-1, 1))
    def publish(self, step: int) -> None:
        said = self.both("publish", self.version + step, b"meta")
        if said is None:
            self.version += step

    @rule(n=st.integers(1, 3), seed=st.integers(0, 100), bad=st.booleans())
    def use(self, n: int, seed: int, bad: bool) -> None:
        sync = self.plan.mode == "sync"
        taken = self.both("take_round", self.version) if sync else self.both("sample", n, seed)
        if taken is None:
            return
        assert len(taken) == (self.plan.units_per_round if sync else n)
        if bad:
            assert self.both("reject", taken[0]) >= 1
            self.completed.discard(taken[0].number)
            self.held.setdefault(taken[0].number, self.version)

    @rule(version=st.integers(0, 5))
    def reset(self, version: int) -> None:
        self.both("reset", version)
        self.both("publish", version, b"meta")
        self.version = version
        self.held.clear()
        self.completed.clear()

    @precondition(lambda self: self.plan.mode == "async")
    @rule()
    def lose_and_restore(self) -> None:
        own, other = (unpack(replay.snapshot()) for replay in (self.local, self.redis))
        assert abs(own.cursor.returned - other.cursor.returned) < 1e-6
        assert replace(other, cursor=own.cursor) == own
        assert replace(other.cursor, returned=own.cursor.returned) == own.cursor
        snapshot = self.redis.snapshot()
        self.both("reset", self.version)
        assert self.both("restore", snapshot) == len(own.units)
        self.both("publish", self.version, b"meta")

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "local"):
            stats = self.both("stats")
            assert stats.bytes <= self.plan.max_bytes
            assert stats.units + stats.claims <= max(self.plan.window, self.plan.need(self.plan.units_per_round))
            assert stats.units <= (self.plan.max_units or stats.units)
            self.both("meta", self.version - 1)
            self.both("done")

    def teardown(self) -> None:
        if hasattr(self, "redis"):
            self.redis.close()
            assert self.connections.replay.dbsize() == 0


@pytest.mark.timeout(600)
def test_both_buffers_always_agree(connections: Connections) -> None:
    class Bound(Twins):
        pass

    Bound.connections = connections
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
