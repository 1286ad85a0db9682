"""The replay buffer: both implementations under the same tests, and against each other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from service.connection import Connections
from service.ids import new_id
from service.replay import RedisReplay
from service.sharded_replay import ShardedReplay
from tests.support.clock import FakeClock
from warploom.errors import Conflict, Fenced, InvalidInput, Unavailable, WireError
from warploom.local_replay import LocalReplay
from warploom.replay import Chunk, Replay, ReplayPlan, Unit, UnitClaim
from warploom.samplers import Sampler

MakeReplay = Callable[..., Replay]


def plan(mode: str = "sync", **options: Any) -> ReplayPlan:
    base: dict[str, Any] = {"units_per_round": 2, "rounds": 3, "max_bytes": 10_000, "lease_s": 10}
    return ReplayPlan(mode=mode, **{**base, **options})  # type: ignore[arg-type]


@pytest.fixture(params=["local", "redis", "shards"])
def make(request: pytest.FixtureRequest, clock: FakeClock) -> MakeReplay:
    """A maker of buffers that were reset at a version and published it."""
    return maker(request, clock)


@pytest.fixture(params=["local", "redis"])
def make_one(request: pytest.FixtureRequest, clock: FakeClock) -> MakeReplay:
    """As `make`, without several servers: there order and budgets are kept in each share (test_sharded_replay)."""
    return maker(request, clock)


def maker(request: pytest.FixtureRequest, clock: FakeClock) -> MakeReplay:
    """A maker of buffers of the kind that the fixture's parameter names."""

    def build(options: ReplayPlan, version: int = 0) -> Replay:
        replay: Replay
        if request.param == "local":
            replay = LocalReplay(options, clock=clock)
        elif request.param == "shards":
            replay = ShardedReplay(request.getfixturevalue("sharded"), new_id("job"), 1, options, clock=clock)
        else:
            connections: Connections = request.getfixturevalue("connections")
            replay = RedisReplay(connections, new_id("job"), 1, options, clock=clock)
        replay.reset(version)
        replay.publish(version, b"meta%d" % version)
        return replay

    return build


def blob(unit: int, part: int, version: int) -> bytes:
    return f"{unit}/{part}@{version}".encode()


def fill(replay: Replay, unit: int, version: int, parts: int = 1) -> list[str]:
    return list(
        replay.extend([Chunk(unit, part, parts, version, blob(unit, part, version)) for part in reversed(range(parts))])
    )


def parts(units: list[Unit] | None) -> list[list[bytes]]:
    return [unit.parts for unit in units or []]


def claimed(replay: Replay, worker: str = "w") -> list[int]:
    units = []
    while claim := replay.claim(worker):
        units.append(claim.unit)
    return units


def test_a_sync_job_from_start_to_end(make: MakeReplay) -> None:
    replay = make(plan())
    for version in range(3):
        assert claimed(replay) == [2 * version, 2 * version + 1]
        assert replay.take_round(version) is None
        assert fill(replay, 2 * version + 1, version, 2) == ["accepted", "accepted"]
        assert replay.take_round(version) is None
        assert fill(replay, 2 * version, version, 2) == ["accepted", "accepted"]
        expected = [[blob(unit, part, version) for part in (0, 1)] for unit in (2 * version, 2 * version + 1)]
        assert parts(replay.take_round(version)) == expected
        assert parts(replay.take_round(version)) == expected
        assert not replay.done()
        replay.publish(version + 1, b"next")
    assert replay.done() and replay.claim("w") is None
    stats = replay.stats()
    assert (stats.version, stats.units, stats.bytes, stats.inserted, stats.sampled) == (3, 0, 0, 6, 6)


def test_rollouts_see_the_current_version_once(make: MakeReplay) -> None:
    replay = make(plan(), 1)
    assert replay.meta(-1) == (1, b"meta1")
    assert replay.meta(1) is None
    replay.publish(2, b"x" * 3_000_000)
    assert replay.meta(1) == (2, b"x" * 3_000_000)
    claim = replay.claim("w")
    assert claim and (claim.unit, claim.version) == (4, 2)


def test_versions_only_grow(make: MakeReplay) -> None:
    replay = make(plan(), 2)
    replay.publish(2, b"other")
    assert replay.meta(-1) == (2, b"meta2")
    with pytest.raises(Conflict):
        replay.publish(1, b"old")
    for version in (1, 3):
        with pytest.raises(Conflict):
            replay.take_round(version)


def test_an_expired_claim_is_handed_out_first(make_one: MakeReplay, clock: FakeClock) -> None:
    replay = make_one(plan(units_per_round=4))
    assert [replay.claim("dead"), replay.claim("alive")][1]
    clock.advance(9)
    assert replay.renew("alive", 1) and not replay.renew("dead", 1)
    clock.advance(1)
    claim = replay.claim("alive")
    assert claim and claim.unit == 0
    assert not replay.renew("dead", 0)
    claim = replay.claim("alive")
    assert claim and claim.unit == 2


def test_a_unit_that_was_done_in_time_is_not_handed_out_again(make: MakeReplay, clock: FakeClock) -> None:
    replay = make(plan())
    claimed(replay)
    fill(replay, 0, 0)
    clock.advance(11)
    assert claimed(replay, "other") == [1]
    assert fill(replay, 1, 0) == ["accepted"], "the first worker's late result is as good as the second's"
    assert replay.stats().claims == 0


def test_what_is_not_needed_is_a_duplicate(make: MakeReplay) -> None:
    replay = make(plan())
    assert fill(replay, 0, 0) == ["duplicate"], "nobody claimed it"
    claimed(replay)
    assert replay.append(Chunk(0, 0, 2, 0, b"a")) == "accepted"
    assert replay.append(Chunk(0, 0, 2, 0, b"b")) == "duplicate"
    assert replay.append(Chunk(0, 1, 2, 0, b"c")) == "accepted"
    assert replay.append(Chunk(0, 1, 2, 0, b"c")) == "duplicate", "the unit is complete"
    fill(replay, 1, 0)
    assert parts(replay.take_round(0)) == [[b"a", b"c"], [blob(1, 0, 0)]]
    replay.publish(1, b"")
    assert fill(replay, 1, 0) == ["duplicate"], "the round is over"
    claimed(replay)
    assert fill(replay, 2, 0) == ["duplicate"], "collected under an old version"
    assert fill(replay, 2, 5) == ["duplicate"], "collected before a reset"
    assert replay.stats().duplicates == 6


def test_chunks_that_contradict_are_refused(make: MakeReplay) -> None:
    replay = make(plan())
    claimed(replay)
    replay.append(Chunk(0, 0, 2, 0, b"a"))
    for chunk in (Chunk(0, 1, 3, 0, b""), Chunk(0, 2, 2, 0, b""), Chunk(0, -1, 2, 0, b""), Chunk(-1, 0, 1, 0, b"")):
        with pytest.raises(InvalidInput):
            replay.append(chunk)
    with pytest.raises(InvalidInput, match="never fits"):
        replay.append(Chunk(0, 1, 2, 0, b"x" * 10_001))
    assert replay.stats().rejected == 1


def test_the_byte_budget_is_hard_and_a_refused_chunk_leaves_nothing(make_one: MakeReplay) -> None:
    replay = make_one(plan(max_bytes=10))
    claimed(replay)
    assert replay.append(Chunk(0, 0, 1, 0, b"123456")) == "accepted"
    before = replay.stats()
    assert replay.append(Chunk(1, 0, 1, 0, b"12345")) == "wait"
    assert (replay.stats().bytes, replay.stats().claims, replay.stats().waits) == (6, before.claims, 1)
    assert replay.append(Chunk(1, 0, 1, 0, b"1234")) == "accepted"


def test_several_chunks_stop_at_the_first_that_must_wait(make_one: MakeReplay) -> None:
    replay = make_one(plan(max_bytes=10))
    claimed(replay)
    whole = [Chunk(0, part, 3, 0, b"1234") for part in range(3)]
    assert replay.extend(whole) == ["accepted", "accepted", "wait"]
    assert replay.extend(whole) == ["duplicate", "duplicate", "wait"]
    assert replay.stats().bytes == 8
    with pytest.raises(InvalidInput, match="several units"):
        replay.extend([Chunk(0, 0, 1, 0, b""), Chunk(1, 0, 1, 0, b"")])


def test_large_units_travel_in_several_groups(connections: Connections) -> None:
    replay = RedisReplay(connections, new_id("job"), 1, plan(max_bytes=2**30))
    replay.reset(0)
    replay.publish(0, b"meta")
    claimed(replay)
    whole = [Chunk(0, part, 5, 0, bytes([part]) * 3_000_000) for part in range(5)]
    assert replay.extend(whole) == ["accepted"] * 5
    fill(replay, 1, 0)
    assert parts(replay.take_round(0))[0] == [chunk.blob for chunk in whole]
    replay.close()
    assert connections.replay.dbsize() == 0, "nothing stays where chunks were sent"


def test_reset_drops_everything_and_starts_at_the_version(make: MakeReplay) -> None:
    replay = make(plan())
    claimed(replay)
    fill(replay, 0, 0)
    replay.reset(2)
    stats = replay.stats()
    assert (stats.version, stats.units, stats.bytes, stats.claims, stats.inserted) == (-1, 0, 0, 0, 0)
    assert replay.claim("w") is None and replay.meta(-1) is None and not replay.done()
    assert fill(replay, 1, 0) == ["duplicate"]
    replay.publish(2, b"two")
    assert claimed(replay) == [4, 5]


def test_a_closed_buffer_is_quiet_for_rollouts_and_loud_for_the_learner(make: MakeReplay) -> None:
    replay = make(plan())
    claimed(replay)
    replay.close()
    assert replay.claim("w") is None and replay.meta(-1) is None and not replay.renew("w", 0)
    assert fill(replay, 0, 0) == ["duplicate"]
    calls: list[Callable[[], object]] = [
        lambda: replay.publish(1, b""),
        lambda: replay.take_round(0),
        lambda: replay.sample(1, 0),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()
    replay.reset(0)
    replay.publish(0, b"again")
    assert claimed(replay) == [0, 1]


def test_async_rollouts_stop_when_they_are_far_enough_ahead(make_one: MakeReplay) -> None:
    replay = make_one(plan("async", rounds=100))
    assert claimed(replay) == [0, 1, 2, 3]
    for unit in range(4):
        fill(replay, unit, 0)
    assert claimed(replay) == []
    assert replay.sample(2, 7) is not None
    assert claimed(replay) == [4, 5]


def test_async_numbers_go_on_after_a_reset(make: MakeReplay) -> None:
    assert claimed(make(plan("async", rounds=100), 5)) == [10, 11, 12, 13]


def test_a_unit_is_used_as_often_as_asked_and_leaves(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=100, samples_per_insert=3, ahead=1))
    for unit in claimed(replay):
        fill(replay, unit, 0)
    for _ in range(3):
        assert sorted(parts(replay.sample(2, 1))) == [[blob(0, 0, 0)], [blob(1, 0, 0)]]
    assert replay.sample(2, 1) is None
    assert (replay.stats().units, replay.stats().bytes, replay.stats().sampled) == (0, 0, 6)


def sampled(replay: Replay, version: int) -> list[Unit] | None:
    """A sample of two once rollouts have done what they may; the first look may do no more than drop what is stale."""
    for _ in range(2):
        for unit in claimed(replay):
            assert fill(replay, unit, version) == ["accepted"]
        taken = replay.sample(2, version)
        if taken:
            break
    return taken


@pytest.mark.parametrize("rate", [0.3, 0.5, 1.0, 1.5, 2.0, 2.4, 7.0])
def test_the_limiter_keeps_the_rate_and_never_stops_both_sides(make: MakeReplay, rate: float) -> None:
    rounds = 60
    replay = make(plan("async", rounds=rounds, samples_per_insert=rate, ahead=4))
    for version in range(rounds):
        assert sampled(replay, version), f"stuck at {version}"
        replay.publish(version + 1, b"")
    stats = replay.stats()
    assert replay.done() and stats.sampled == 2 * rounds
    returned = stats.dropped_stale  # each lets at most one more unit in
    assert 2 * rounds / rate * 0.8 - 8 <= stats.inserted <= 2 * rounds / rate + 8 + returned


@pytest.mark.parametrize("name", ["lifo", "prioritized", "fresh", "without_replacement"])
@pytest.mark.parametrize("most", [None, 3])
def test_every_sampler_keeps_the_rate(make: MakeReplay, name: Any, most: int | None) -> None:
    options = {"samples_per_insert": 2.0, "ahead": 3, "max_times_sampled": most, "sampler": Sampler(name=name)}
    replay = make(plan("async", rounds=25, **options))
    uses: Counter[int] = Counter()
    for version in range(25):
        taken = sampled(replay, version)
        assert taken, f"stuck at {version}"
        uses.update(unit.number for unit in taken)
        replay.publish(version + 1, b"")
    assert most is None or max(uses.values()) <= most
    assert 17 <= replay.stats().inserted <= 50 / 2 + 8 + replay.stats().dropped_stale


def test_priorities_and_weights_are_kept(make: MakeReplay) -> None:
    sampler = Sampler(name="prioritized", priority_exponent=1.0, importance_exponent=1.0)
    replay = make(plan("async", rounds=100, sampler=sampler))
    for unit in claimed(replay):
        replay.append(Chunk(unit, 0, 1, 0, b"x", 10.0**unit))
    taken = replay.sample(4, 0)
    assert taken
    weights = {unit.number: unit.weight for unit in taken}
    assert weights[0] == 1.0
    assert weights[0] > weights[1] > weights[2] > weights[3] > 0
    with pytest.raises(InvalidInput, match="priority"):
        replay.append(Chunk(0, 0, 1, 0, b"x", 0.0))


def test_no_more_is_collected_than_the_rounds_can_use(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=3, ahead=50))
    assert claimed(replay) == [0, 1, 2, 3, 4, 5]


def test_stale_units_are_dropped_and_their_credit_returns(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=100, max_staleness=1))
    for unit in claimed(replay)[:3]:
        fill(replay, unit, 0)
    replay.publish(1, b"")
    replay.publish(2, b"")
    assert fill(replay, 3, 0) == ["duplicate"], "too old on arrival"
    assert replay.sample(2, 0) is None
    stats = replay.stats()
    assert (stats.dropped_stale, stats.units, stats.bytes, stats.claims) == (4, 0, 0, 0)
    assert claimed(replay) == [4, 5, 6, 7]


def test_a_newer_version_of_an_unfinished_unit_replaces_the_older(make: MakeReplay, clock: FakeClock) -> None:
    replay = make(plan("async", rounds=100, ahead=1))
    claimed(replay)
    replay.append(Chunk(0, 0, 2, 0, b"old"))
    replay.publish(1, b"")
    assert replay.append(Chunk(0, 1, 2, 1, b"new1")) == "accepted"
    assert replay.append(Chunk(0, 1, 2, 0, b"old1")) == "duplicate"
    assert replay.append(Chunk(0, 0, 2, 1, b"new0")) == "accepted"
    fill(replay, 1, 1)
    assert sorted(parts(replay.sample(2, 0))) == [[blob(1, 0, 1)], [b"new0", b"new1"]]


def test_a_sample_depends_on_the_seed_and_not_on_the_order_of_arrival(make: MakeReplay) -> None:
    def sampled(order: list[int], seed: int) -> list[Unit] | None:
        replay = make(plan("async", rounds=100, ahead=8))
        claimed(replay)
        for unit in order:
            fill(replay, unit, 0)
        return replay.sample(3, seed)

    forwards = sampled(list(range(16)), 5)
    assert forwards == sampled(list(reversed(range(16))), 5)
    assert any(sampled(list(range(16)), seed) != forwards for seed in range(4))


def test_the_learner_waits_for_its_minimum(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=100, min_units=4))
    units = claimed(replay)
    for unit in units[:3]:
        fill(replay, unit, 0)
    assert replay.sample(1, 0) is None
    fill(replay, units[3], 0)
    assert replay.sample(1, 0) is not None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"units_per_round": 0}, "/replay/units_per_round"),
        ({"max_bytes": 0}, "/replay/max_bytes"),
        ({"lease_s": 0}, "/replay/lease_s"),
        ({"lease_s": float("nan")}, "/replay/lease_s"),
        ({"samples_per_insert": 0.0}, "/replay/samples_per_insert"),
        ({"mode": "both"}, "/replay/mode"),
        ({"mode": "async", "min_units": 5}, "/replay/min_units"),
        ({"mode": "async", "samples_per_insert": 0.25}, "/replay/ahead"),
        ({"mode": "async", "samples_per_insert": 3.0, "max_times_sampled": 2}, "/replay/max_times_sampled"),
        (
            {"mode": "async", "samples_per_insert": 1.5, "sampler": Sampler(name="consuming")},
            "/replay/max_times_sampled",
        ),
        ({"sampler": Sampler(name="fifo")}, "/replay/sampler"),
        ({"when_full": "drop_oldest"}, "/replay/when_full"),
        ({"max_units": 1}, "/replay/max_trajectories"),
        ({"mode": "async", "samples_per_insert": 0.5, "ahead": 4, "max_units": 3}, "/replay/max_trajectories"),
    ],
)
def test_plans_that_would_deadlock_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(**options)
    assert caught.value.field == field and caught.value.rule


def test_a_budget_that_holds_no_round_is_refused_with_the_numbers() -> None:
    plan(max_bytes=100).check_unit_bytes(50)
    with pytest.raises(InvalidInput, match="2 units of 51 bytes = 102 bytes"):
        plan(max_bytes=100).check_unit_bytes(51)
    with pytest.raises(InvalidInput, match="window is 12 units"):
        plan("async", max_bytes=100, samples_per_insert=2.5).check_unit_bytes(9)


def test_a_newer_generation_fences_the_older_one(connections: Connections) -> None:
    job = new_id("job")
    old = RedisReplay(connections, job, 1, plan())
    old.reset(0)
    old.publish(0, b"old")
    claimed(old)
    new = RedisReplay(connections, job, 2, plan())
    with pytest.raises(Unavailable):
        new.publish(0, b"before the reset")
    assert new.claim("w") is None
    new.reset(0)
    calls: list[Callable[[], object]] = [
        lambda: old.reset(0),
        lambda: old.publish(1, b""),
        lambda: old.claim("w"),
        lambda: old.renew("w", 0),
        lambda: old.meta(-1),
        lambda: old.append(Chunk(0, 0, 1, 0, b"x")),
        lambda: old.take_round(0),
        lambda: old.sample(1, 0),
        lambda: old.reject(Unit(0, 0, [])),
        old.done,
        old.close,
    ]
    for call in calls:
        with pytest.raises(Fenced):
            call()
    new.publish(0, b"new")
    assert new.meta(-1) == (0, b"new")


def test_nothing_of_a_job_stays_after_close(connections: Connections) -> None:
    replay = RedisReplay(connections, new_id("job"), 1, plan())
    replay.reset(0)
    for version in range(2):
        replay.publish(version, b"meta")
        claimed(replay)
        fill(replay, 2 * version, version, 3)
    assert connections.replay.dbsize() > 5
    replay.close()
    fill(replay, 3, 1)
    assert connections.replay.dbsize() == 0


def test_a_full_server_makes_rollouts_wait(connections: Connections) -> None:
    replay = RedisReplay(connections, new_id("job"), 1, plan(max_bytes=2**30))
    replay.reset(0)
    replay.publish(0, b"meta")
    claimed(replay)
    connections.replay.config_set("maxmemory", 1)
    try:
        assert fill(replay, 0, 0) == ["wait"]
    finally:
        connections.replay.config_set("maxmemory", 0)
    assert fill(replay, 0, 0) == ["accepted"]


def test_a_full_server_refuses_claims_and_versions_whole_and_tells_the_learner(connections: Connections) -> None:
    replay = RedisReplay(connections, new_id("job"), 1, plan("async", rounds=100))
    replay.reset(0)
    replay.publish(0, b"meta")
    assert replay.claim("w") == UnitClaim(0, 0)
    before = replay.stats()
    connections.replay.config_set("maxmemory", 1)
    try:
        calls: list[Callable[[], object]] = [
            lambda: replay.claim("w"),
            lambda: replay.renew("w", 0),
            lambda: replay.publish(0, b"meta"),
            lambda: replay.publish(1, b"next"),
            lambda: replay.wait("learner", 0.01),
            replay.stats,
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="no memory left"):
                call()
        replay.wait("rollouts", 0.01)
    finally:
        connections.replay.config_set("maxmemory", 0)
    assert replay.stats() == before, "nothing is half done"
    assert replay.claim("w") == UnitClaim(1, 0)
    replay.publish(1, b"next")
    assert replay.meta(0) == (1, b"next")


def test_a_rejected_unit_of_a_round_is_done_again(make: MakeReplay) -> None:
    replay = make(plan())
    for unit in claimed(replay):
        fill(replay, unit, 0, 2)
    taken = replay.take_round(0)
    assert taken
    assert replay.reject(taken[1]) == 1
    assert replay.reject(taken[1]) == 2, "counted, though it is on its way already"
    assert replay.take_round(0) is None
    assert claimed(replay) == [1]
    assert fill(replay, 1, 0, 2) == ["accepted", "accepted"]
    assert replay.take_round(0) == taken
    replay.publish(1, b"")
    replay.reject(taken[0])
    assert claimed(replay) == [2, 3], "its round is over"
    stats = replay.stats()
    assert (stats.rejected, stats.inserted, stats.sampled) == (3, 3, 2)


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_a_rejected_unit_of_a_sample_is_done_again_and_its_use_taken_back(make_one: MakeReplay, rate: float) -> None:
    replay = make_one(plan("async", rounds=100, samples_per_insert=rate, ahead=1))
    for unit in claimed(replay):
        fill(replay, unit, 0)
    taken = replay.sample(2, 0)
    assert taken
    before = replay.stats()
    replay.reject(taken[0])
    after = replay.stats()
    assert (after.sampled, after.claims) == (before.sampled - 1, before.claims + 1)
    replay.publish(1, b"")
    assert replay.claim("w") == UnitClaim(taken[0].number, 1)
    assert fill(replay, taken[0].number, 1) == ["accepted"]


def test_a_budget_of_units_bounds_claims_and_lets_units_that_were_begun_end(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=100, max_units=2))
    assert claimed(replay) == [0, 1], "no work is begun that could not be stored"
    assert replay.append(Chunk(0, 0, 2, 0, b"a")) == "accepted"
    assert fill(replay, 1, 0) == ["accepted"]
    assert replay.append(Chunk(0, 1, 2, 0, b"b")) == "accepted"
    assert claimed(replay) == []
    assert replay.sample(2, 0)
    assert claimed(replay) == [2, 3]


@pytest.mark.parametrize("budget", [{"max_units": 3}, {"max_bytes": 12}])
def test_the_oldest_go_where_the_plan_says_so(make_one: MakeReplay, budget: dict[str, int]) -> None:
    replay = make_one(plan("async", rounds=100, ahead=4, when_full="drop_oldest", **budget))
    for unit in claimed(replay)[:5]:
        assert replay.append(Chunk(unit, 0, 1, 0, b"%4d" % unit)) == "accepted"
    stats = replay.stats()
    assert (stats.units, stats.bytes, stats.evicted, stats.waits) == (3, 12, 2, 0)
    taken = replay.sample(3, 0)
    assert {unit.number for unit in taken or []} == {2, 3, 4}
    assert len(claimed(replay)) == 5, "three that were used and two that were dropped"


def test_a_rest_ends_when_something_happened_and_is_counted(make: MakeReplay) -> None:
    replay = make(plan())
    replay.wait("rollouts", 5)  # the version that was published before
    started = time.monotonic()
    replay.wait("learner", 0.05)
    assert time.monotonic() - started >= 0.05
    assert replay.stats().blocked_learner_s >= 0.05
    claimed(replay)
    woken = threading.Thread(target=replay.wait, args=("learner", 5))
    woken.start()
    started = time.monotonic()
    fill(replay, 0, 0)
    woken.join()
    assert time.monotonic() - started < 4
    fill(replay, 1, 0)
    started = time.monotonic()
    replay.publish(1, b"")
    replay.wait("rollouts", 5)
    assert time.monotonic() - started < 4, "what happened before the rest counts"


def test_a_snapshot_brings_units_limiter_and_claims_back(make: MakeReplay) -> None:
    options = plan("async", rounds=100, samples_per_insert=2, ahead=3)
    replay = make(options)
    units = claimed(replay)
    for unit in units[:4]:
        fill(replay, unit, 0, 2)
    replay.sample(2, 0)
    before, snapshot, expected = replay.stats(), replay.snapshot(), None
    expected = replay.sample(2, 7)
    replay.publish(1, b"")
    with pytest.raises(Conflict, match="between reset and publish"):
        replay.restore(snapshot)
    replay.reset(0)
    with pytest.raises(WireError):
        replay.restore(snapshot[:-1])
    assert replay.restore(snapshot) == 4
    replay.publish(0, b"meta")
    after = replay.stats()
    assert (after.units, after.bytes, after.sampled, after.inserted) == (4, before.bytes, 2, 4)
    assert claimed(replay)[:2] == units[4:6], "what was being done is done again"
    assert replay.sample(2, 7) == expected


def test_a_snapshot_that_is_older_counts_the_rounds_since(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=100))
    for unit in claimed(replay):
        fill(replay, unit, 0)
    snapshot = replay.snapshot()
    replay.reset(3)
    assert replay.restore(snapshot) == 4
    replay.publish(3, b"meta")
    assert replay.stats().sampled == 6
    assert replay.sample(2, 0)


def test_a_restore_stops_at_the_budget(make: MakeReplay) -> None:
    large, small = (make(plan("async", rounds=100, max_bytes=size)) for size in (100, 20))
    for unit in claimed(large):
        large.append(Chunk(unit, 0, 1, 0, b"12345678"))
    small.reset(0)
    assert small.restore(large.snapshot()) == 2
    assert small.stats().bytes == 16


def test_uses_of_units_that_left_do_not_let_more_in(make_one: MakeReplay) -> None:
    replay = make_one(plan("async", rounds=4, ahead=4, samples_per_insert=2))
    units = claimed(replay)
    assert units == [0, 1, 2, 3], "8 samples are 4 units of 2 uses"
    for unit in units:
        fill(replay, unit, 0)
    assert replay.sample(2, 0) == replay.sample(2, 0), "the same two, which leave now"
    assert replay.stats().units == 2
    assert claimed(replay) == []


def test_async_units_from_before_a_reset_are_not_mixed_in(make: MakeReplay) -> None:
    replay = make(plan("async", rounds=100))
    claimed(replay)
    assert fill(replay, 0, 1) == ["duplicate"]
    assert fill(replay, 0, 0) == ["accepted"]
