"""The replay buffer on several servers, one of which is lost and comes back."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import pytest

from service import keys, sharded_replay
from service.connection import Connections, connect
from service.embedded import EmbeddedRedis
from service.ids import new_id
from service.replay import RedisReplay
from service.replay_totals import totals
from service.settings import Settings
from service.sharded_replay import ShardedReplay, replay_on
from tests.support.waiting import wait_until
from warploom.errors import Fenced, Unavailable
from warploom.local_replay import LocalReplay
from warploom.replay import Chunk, Replay, ReplayPlan
from warploom.replay_shares import Shares
from warploom.samplers import Sampler, SamplerName

ROLES = ("replay", "replay-1", "replay-2")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), shards=len(ROLES)) as found:
        yield found


@pytest.fixture
def settings(servers: EmbeddedRedis) -> Settings:
    return Settings(state_url=servers.state_url, replay_url=servers.replay_url)


@pytest.fixture
def shards(servers: EmbeddedRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    """Clients of empty servers; a server that was lost is asked again, and used again, at once."""
    monkeypatch.setattr("service.connection.REST_S", 0.01)
    monkeypatch.setattr(sharded_replay, "RETURN_S", 0.0)
    for role in servers.dead():
        servers.revive(role)
    found = connect(settings)
    for client in found.shards:
        client.flushall()
    yield found
    found.close()


def lose(servers: EmbeddedRedis, role: str) -> None:
    os.kill(servers.pid(role), signal.SIGKILL)
    wait_until(lambda: role in servers.dead())


class Job:
    """One job's buffer as its learner and one of its rollouts see it."""

    def __init__(self, connections: Connections, mode: Any = "sync", **options: Any) -> None:
        base: dict[str, Any] = {"units_per_round": 6, "rounds": 9, "max_bytes": 60_000, "lease_s": 10}
        self.plan = ReplayPlan(**{"mode": mode, **base, **options})
        self.id, self.told, self.connections = new_id("job"), list[tuple[str, dict[str, Any]]](), connections
        self.learner = self.open(1)
        self.rollout = self.open(1)
        self.learner.reset(0)
        self.learner.publish(0, b"meta0")

    def open(self, generation: int) -> ShardedReplay:
        def tell(kind: str, data: dict[str, Any]) -> None:
            self.told.append((kind, data))

        return ShardedReplay(self.connections, self.id, generation, self.plan, tell=tell)

    def claimed(self, rollout: Replay | None = None) -> list[int]:
        units = []
        while claim := (rollout or self.rollout).claim("w"):
            units.append(claim.unit)
        return units

    def fill(self, units: Sequence[int], version: int = 0, rollout: Replay | None = None) -> list[str]:
        into = rollout or self.rollout
        return [into.extend([Chunk(unit, i, 2, version, chunk(unit, i)) for i in range(2)])[-1] for unit in units]

    def home(self, role: str) -> int:
        """The share whose home this server is."""
        server = self.connections.shards[ROLES.index(role)]
        return next(i for i, copies in enumerate(self.learner._copies) if copies[0].server is server)

    def units_of(self, role: str, units: Sequence[int]) -> list[int]:
        """Those that belong to the share whose home this server is."""
        shares = Shares(self.plan, len(ROLES))
        return [unit for unit in units if shares.place(unit)[0] == self.home(role)]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]


def chunk(unit: int, part: int) -> bytes:
    return b"%d/%d" % (unit, part)


def test_units_are_spread_over_all_servers_and_come_back_in_order(shards: Connections) -> None:
    job = Job(shards)
    assert job.claimed() == list(range(6))
    assert job.fill(range(6)) == ["accepted"] * 6
    for client in shards.shards:
        assert len(list(client.scan_iter(f"wl:replay:{{{job.id}}}:*:c:*"))) == 4
    taken = job.learner.take_round(0)
    assert [(unit.number, unit.parts) for unit in taken or []] == [(u, [chunk(u, 0), chunk(u, 1)]) for u in range(6)]
    assert job.learner.stats().inserted == 6
    job.learner.close()
    assert [client.dbsize() for client in shards.shards] == [0, 0, 0]


def test_jobs_with_small_rounds_use_different_servers(shards: Connections) -> None:
    homes = {Job(shards, units_per_round=1).learner._copies[0][0].server for _ in range(40)}
    assert homes == set(shards.shards)


def test_one_server_is_a_buffer_without_shares(connections: Connections) -> None:
    plan = ReplayPlan(mode="sync", units_per_round=2, rounds=1, max_bytes=100)
    assert isinstance(replay_on(connections, new_id("job"), 1, plan), RedisReplay)


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_a_sample_is_drawn_from_all_that_is_stored_as_on_one_server(shards: Connections, name: Any) -> None:
    job = Job(shards, "async", ahead=3, sampler=Sampler(name=name, priority_exponent=1.0), rounds=50)
    local = LocalReplay(job.plan)
    local.reset(0)
    local.publish(0, b"meta0")
    units = sorted(job.claimed())
    assert units == job.claimed(local) == list(range(18))
    uneven = [unit for unit in units if unit % 3 == 0 or unit < 9]
    for unit in uneven:
        for replay in (job.rollout, local):
            assert replay.append(Chunk(unit, 0, 1, 0, b"x", 1.0 + unit)) == "accepted"
    assert job.learner.sample(6, 5) == local.sample(6, 5)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_lost_servers_units_alone_are_done_again(shards: Connections, servers: EmbeddedRedis, mode: str) -> None:
    job = Job(shards, mode, ahead=1 if mode == "sync" else 2)
    units = job.claimed()
    done, working = units[:-3], units[-3:]
    job.fill(done)
    lost = job.units_of("replay-1", units)
    lose(servers, "replay-1")
    said = dict(zip(working, job.fill(working), strict=True))
    assert {unit for unit, word in said.items() if word == "duplicate"} == set(working) & set(lost), "nobody waits"
    assert (job.learner.take_round(0) if mode == "sync" else job.learner.sample(12, 0)) is None
    assert job.kinds() == ["shard_lost"]
    assert "does not answer" in job.told[0][1]["message"]
    assert job.rollout.meta(-1) == (0, b"meta0")
    other = job.open(1)
    again = job.claimed(other)
    assert again == lost
    assert set(job.fill(again, 0, other)) == {"accepted"}
    taken = job.learner.take_round(0) if mode == "sync" else job.learner.sample(12, 0)
    assert sorted(unit.number for unit in taken or []) == units
    job.learner.publish(1, b"meta1")
    assert job.rollout.meta(0) == (1, b"meta1")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_server_that_is_back_is_used_again(shards: Connections, servers: EmbeddedRedis, mode: str) -> None:
    job = Job(shards, mode, samples_per_insert=1.0)
    lose(servers, "replay-2")
    job.learner.publish(1, b"meta1")
    assert job.kinds() == ["shard_lost"]
    job.fill(job.claimed(), 1)
    stored = job.learner.stats()
    assert stored.units == job.plan.window
    servers.revive("replay-2")
    shards.shards[2].flushall()
    job.learner.publish(2, b"meta2")
    assert job.kinds() == ["shard_lost", "shard_back"]
    assert job.told[1][1]["now"] == shards.shards[2].shown_url
    if mode == "async":
        assert job.learner.stats().units == stored.units, "what was stored meanwhile came along"
    before = shards.shards[2].dbsize()
    job.fill(job.claimed(), 2)
    assert (shards.shards[2].dbsize() > before) == (mode == "sync")
    taken = job.learner.take_round(2) if mode == "sync" else job.learner.sample(6, 0)
    assert len(taken or []) == 6


def test_a_server_that_lost_its_memory_starts_again_alone(shards: Connections) -> None:
    job = Job(shards)
    units = job.claimed()
    job.fill(units)
    shards.shards[0].flushall()
    assert job.learner.take_round(0) is None
    assert job.claimed() == job.units_of("replay", units)


def test_what_was_taken_of_a_round_is_not_lost_with_its_server(shards: Connections, servers: EmbeddedRedis) -> None:
    job = Job(shards)
    units = job.claimed()
    missing = job.units_of("replay-2", units)
    job.fill([unit for unit in units if unit not in missing])
    assert job.learner.take_round(0) is None
    lose(servers, "replay")
    job.fill(missing)
    assert len(job.learner.take_round(0) or []) == 6
    assert job.kinds() == []


def test_a_buffer_that_is_lost_everywhere_is_reset_by_the_learner(shards: Connections) -> None:
    job = Job(shards)
    for client in shards.shards:
        client.flushall()
    for call in (lambda: job.learner.take_round(0), lambda: job.learner.publish(0, b"meta0")):
        with pytest.raises(Unavailable, match="holds no buffer"):
            call()
    job.learner.reset(0)
    job.learner.publish(0, b"meta0")
    assert job.claimed() == list(range(6))


def test_nothing_goes_on_without_any_server(shards: Connections, servers: EmbeddedRedis, settings: Settings) -> None:
    job = Job(shards)
    for role in ROLES:
        lose(servers, role)
    calls = (
        lambda: job.learner.take_round(0),
        lambda: job.learner.publish(1, b""),
        lambda: job.rollout.claim("w"),
        lambda: job.fill([0]),
        lambda: job.rollout.meta(-1),
        lambda: job.rollout.wait("rollouts", 1),
        job.rollout.done,
        job.rollout.stats,
        lambda: connect(settings, wait_s=0),
    )
    for call in calls:
        with pytest.raises(Unavailable):
            call()


def test_a_server_that_only_the_learner_cannot_reach(shards: Connections, settings: Settings) -> None:
    elsewhere = connect(settings)
    job = Job(shards)
    rollout = ShardedReplay(elsewhere, job.id, 1, job.plan)
    cut = shards.shards[1]
    cut.away, cut._asked_again = True, math.inf
    assert job.learner.take_round(0) is None
    for _ in range(2):  # the share's units twice: where the learner does not look, and where it does
        job.fill(job.claimed(rollout), 0, rollout)
    assert len(job.learner.take_round(0) or []) == 6
    cut._asked_again = 0.0
    job.learner.publish(1, b"meta1")
    assert job.kinds() == ["shard_lost", "shard_back"]
    assert sorted(job.claimed(rollout)) == list(range(6, 12))
    elsewhere.close()


def test_an_older_generation_is_fenced_on_all_servers(shards: Connections, servers: EmbeddedRedis) -> None:
    old = Job(shards)
    new = old.open(2)
    lose(servers, "replay")
    new.reset(0)
    for call in (lambda: old.learner.publish(1, b""), lambda: old.learner.reset(0), lambda: old.rollout.claim("w")):
        with pytest.raises(Fenced):
            call()
    new.publish(0, b"new")
    servers.revive("replay")
    new.publish(1, b"newer")
    with pytest.raises(Fenced):
        RedisReplay(shards, old.id, 1, old.plan, server=shards.replay, share=old.home("replay")).reset(0)


def test_budgets_of_shares_are_the_whole_ones(shards: Connections) -> None:
    job = Job(shards, "async", max_bytes=60, ahead=3)
    said = [job.rollout.append(Chunk(unit, 0, 1, 0, b"12345678")) for unit in job.claimed()]
    assert said.count("accepted") == 6, "two of 8 bytes in each share of 20"
    assert job.learner.stats().bytes == 48
    dropping = Job(shards, "async", max_units=7, ahead=3, when_full="drop_oldest")
    for unit in dropping.claimed():
        dropping.rollout.append(Chunk(unit, 0, 1, 0, b"x"))
    assert dropping.learner.stats().units == 7


def test_the_learner_is_woken_by_what_it_lacks(shards: Connections) -> None:
    job = Job(shards)
    units = job.claimed()
    job.fill(units[:-1])
    assert job.learner.take_round(0) is None
    job.learner.wait("learner", 5)  # what came before
    woken = threading.Thread(target=job.learner.wait, args=("learner", 5))
    started = time.monotonic()
    woken.start()
    job.fill(units[-1:])
    woken.join()
    assert time.monotonic() - started < 4
    assert job.learner.stats().blocked_learner_s > 0


def test_a_snapshot_keeps_shares(shards: Connections) -> None:
    job = Job(shards, "async")
    job.fill(job.claimed())
    snapshot, expected = job.learner.snapshot(), job.learner.sample(6, 3)
    job.learner.reset(0)
    assert job.learner.restore(snapshot) == 12
    job.learner.publish(0, b"meta0")
    assert job.learner.sample(6, 3) == expected


def test_numbers_of_all_servers_are_summed(shards: Connections) -> None:
    job = Job(shards)
    job.fill(job.claimed())
    shards.state.zadd(keys.leases("job"), {job.id: 1})
    assert totals(shards)["units"] == 6
    assert totals(shards)["inserted"] == 6
