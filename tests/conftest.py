"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that share two cores with others mostly wait

import pytest

from service import keys
from service.connection import Connections, RoleClient, connect
from service.embedded import EmbeddedRedis
from service.settings import Settings
from tests.support.clock import FakeClock
from warploom.errors import SetupError

IN_MEMORY = "/dev/shm"  # a busy disk would make every write of the state server wait


@pytest.fixture(scope="session")
def embedded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """Two real servers for the whole session; on a laptop without a binary their tests are skipped, in CI they fail."""
    with _servers(tmp_path_factory) as servers:
        yield servers


@pytest.fixture(scope="session")
def sharded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """As `embedded_redis`, with two replay servers."""
    with _servers(tmp_path_factory, shards=2) as servers:
        yield servers


@contextmanager
def _servers(tmp_path_factory: pytest.TempPathFactory, **options: int) -> Iterator[EmbeddedRedis]:
    folder = (
        Path(tempfile.mkdtemp(dir=IN_MEMORY)) if os.access(IN_MEMORY, os.W_OK) else tmp_path_factory.mktemp("redis")
    )
    servers = EmbeddedRedis(folder, **options)
    try:
        servers.start()
    except SetupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.message)
    yield servers
    servers.stop()
    shutil.rmtree(folder)


@pytest.fixture
def redis_settings(embedded_redis: EmbeddedRedis, tmp_path: Path) -> Settings:
    """Settings that point at the session's servers and at a home of this test's own."""
    return Settings(state_url=embedded_redis.state_url, replay_url=embedded_redis.replay_url, home=tmp_path / "home")


@pytest.fixture
def connections(redis_settings: Settings) -> Iterator[Connections]:
    """Clients of two empty servers; afterwards every key must have a lifetime or be a permanent one."""
    with _clean(redis_settings) as found:
        yield found


@pytest.fixture
def sharded(sharded_redis: EmbeddedRedis, tmp_path: Path) -> Iterator[Connections]:
    """As `connections`, with two replay servers."""
    settings = Settings(state_url=sharded_redis.state_url, replay_url=sharded_redis.replay_url, home=tmp_path / "home")
    with _clean(settings) as found:
        yield found


@contextmanager
def _clean(settings: Settings) -> Iterator[Connections]:
    found = connect(settings)
    for client in (found.state, *found.shards):
        client.flushall()
    yield found
    leaks = leaked_keys(found)
    found.close()
    assert not leaks, f"keys without a lifetime that are not in keys.PERMANENT: {leaks}"


def leaked_keys(connections: Connections) -> list[str]:
    """Keys on both servers that would stay for ever although no rule lets them."""
    return [
        name
        for client in (connections.state, *connections.shards)
        for name in _everlasting(client)
        if not any(pattern.fullmatch(name) for pattern in keys.PERMANENT)
    ]


def _everlasting(client: RoleClient) -> list[str]:
    return [key.decode() for key in client.scan_iter(count=1000) if client.ttl(key) == -1]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()
