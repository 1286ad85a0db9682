"""Learner and rollout of one job as threads, without Ray, while their replay server loses its memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.checkpoints import CheckpointStore
from service.connection import Connections, connect
from service.embedded import EmbeddedRedis
from service.settings import Settings
from tests.support.threaded_job import Running, sine
from tests.support.waiting import wait_until
from warploom.local import train
from warploom.training import unpack_state

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Workers set how many threads torch uses in their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_sync_job_does_its_round_again_and_ends_the_same(connections: Connections, redis_settings: Settings) -> None:
    spec = sine()
    running = Running(connections, redis_settings, spec)
    wait_until(lambda: len(running.told("round")) >= 3, 120)
    connections.replay.flushall()
    running.end()
    [waiting] = running.told("waiting")
    assert waiting["for"] == "replay"
    assert "holds no buffer" in waiting["message"]
    assert running.told("resumed")[0]["seconds"] > 0
    assert running.jobs.get(running.id).progress.waiting is None
    last = running.told("round")[-1]
    assert last["samples_per_insert"] > 0
    assert last["blocked_learner_s"] > 0
    assert same(final(redis_settings, running.id), train(spec).meta.params)
    assert [data["meta_step"] for data in running.told("round")] == list(range(1, 41)), "no round is missing or doubled"


def test_an_async_job_gets_its_buffer_back(connections: Connections, redis_settings: Settings) -> None:
    spec = sine(training={"mode": "async"}, replay={"checkpoint": True, "samples_per_insert": 2.0, "ahead": 4})
    running = Running(connections, redis_settings, spec)
    wait_until(lambda: len(running.told("checkpoint")) >= 2, 120)
    connections.replay.flushall()
    running.end()
    assert running.told("replay_restored")[0]["units"] >= 0
    assert running.told("round")[-1]["meta_step"] == 40


def test_a_job_whose_replay_server_is_full_pauses_with_the_reason_and_goes_on(
    connections: Connections, redis_settings: Settings
) -> None:
    spec = sine(training={"rounds": 12})
    running = Running(connections, redis_settings, spec)
    wait_until(lambda: len(running.told("round")) >= 3, 120)
    connections.replay.config_set("maxmemory", 1)
    try:
        wait_until(lambda: "no memory left" in (running.jobs.get(running.id).progress.waiting or ""), 60)
        rounds = len(running.told("round"))
    finally:
        connections.replay.config_set("maxmemory", 0)
    assert rounds < 12
    running.end()
    assert running.told("resumed")
    assert running.jobs.get(running.id).progress.waiting is None
    assert [data["meta_step"] for data in running.told("round")] == list(range(1, 13))
    assert same(final(redis_settings, running.id, 12), train(spec).meta.params)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """Three replay servers."""
    with EmbeddedRedis(tmp_path / "redis", shards=3) as servers:
        yield servers


def test_a_sync_job_outlives_one_of_its_replay_servers_and_uses_it_again(
    three: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.connection.REST_S", 0.1)
    monkeypatch.setattr("service.sharded_replay.RETURN_S", 0.1)
    settings = Settings(state_url=three.state_url, replay_url=three.replay_url, home=tmp_path / "home")
    spec = sine(training={"meta_batch": 6})
    connections = connect(settings)
    running = Running(connections, settings, spec)
    wait_until(lambda: len(running.told("round")) >= 3, 120)
    os.kill(three.pid("replay-1"), signal.SIGKILL)
    wait_until(lambda: running.told("shard_lost"), 60, what="the loss of a server")
    rounds = len(running.told("round"))
    wait_until(lambda: len(running.told("round")) >= rounds + 2, 60, what="rounds on the others")
    three.revive("replay-1")
    wait_until(lambda: running.told("shard_back"), 60, what="the server's return")
    running.end()
    connections.close()
    assert running.told("waiting") == []
    assert [data["meta_step"] for data in running.told("round")] == list(range(1, 41))
    assert same(final(settings, running.id), train(spec).meta.params)


def final(settings: Settings, job_id: str, rounds: int = 40) -> dict[str, torch.Tensor]:
    checkpoint = CheckpointStore.of(settings, job_id).latest()
    assert checkpoint
    state = unpack_state(checkpoint.blobs)
    assert state.meta.version == rounds
    return dict(state.meta.params)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(found[name], value) for name, value in expected.items())
