"""Connections, settings, scripts, logs."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
import redis
import structlog
from pydantic import SecretStr, ValidationError

from service.connection import Connections, connect, packed
from service.jobs import JobStore
from service.observability import configure_logging
from service.processes import free_port
from service.scripts import FOLDER, Script
from service.settings import Settings
from service.urls import without_password
from tests.conftest import leaked_keys
from warploom.errors import Unavailable
from warploom.spec import JobSpec


def test_a_server_that_is_down_is_named_without_its_password(redis_settings: Settings) -> None:
    port = free_port()
    settings = Settings(
        state_url=redis_settings.state_url, replay_url=f"redis://user:topsecret@127.0.0.1:{port}/0", home=Path()
    )
    with pytest.raises(Unavailable) as caught:
        connect(settings, wait_s=0)
    message = caught.value.message
    assert "replay" in message and str(port) in message and "topsecret" not in message


def test_passwords_are_struck_out() -> None:
    assert without_password("redis://:a%40b@h:1/0") == "redis://:***@h:1/0"
    assert without_password("rediss://u:p@h/2?x=1") == "rediss://u:***@h/2?x=1"
    assert without_password("redis://h:1/0") == "redis://h:1/0"


def test_scripts_survive_a_server_that_forgot_them(connections: Connections, spec: JobSpec) -> None:
    connections.state.script_flush()
    jobs = JobStore(connections)
    job = jobs.create(spec)
    connections.state.script_flush()
    assert jobs.cancel(job.id).state == "cancelled"


def test_a_full_server_is_unavailable(connections: Connections, spec: JobSpec) -> None:
    jobs = JobStore(connections)
    connections.state.config_set("maxmemory", 1)
    try:
        with pytest.raises(Unavailable, match="no memory"):
            jobs.create(spec)
    finally:
        connections.state.config_set("maxmemory", 0)
    assert jobs.list().data == []


def test_commands_travel_as_bytes_and_large_values_come_back_whole(connections: Connections) -> None:
    blob = bytes(range(256)) * 12_000
    commands = [
        ("SET", "wl:a", blob, "EX", 10),
        ("INCR", "wl:a"),
        ("SET", "wl:b", "\u00e9", "EX", 10),
        ("SET", "wl:c", 1.5, "EX", 10),
        ("MGET", "wl:a", "wl:b", "wl:none", "wl:c", "wl:a"),
    ]
    said = connections.replay.exchange(packed(commands), len(commands))
    assert isinstance(said[1], redis.ResponseError), "and the answers after it are in their places"
    assert [said[0], *said[2:4]] == [b"OK"] * 3
    assert said[4] == [blob, "\u00e9".encode(), None, b"1.5", blob]
    assert connections.replay.get_many(["wl:a", "wl:b"] * 4) == [blob, "\u00e9".encode()] * 4
    assert connections.replay.get_many(["wl:a", "wl:none"]) is None
    connections.replay.flushall()


def test_a_broken_connection_is_made_anew(connections: Connections, redis_settings: Settings) -> None:
    assert connections.replay.exchange(packed([("PING",)]), 1) == [b"PONG"]
    with redis.Redis.from_url(redis_settings.replay_url) as other:
        other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert connections.replay.exchange(packed([("PING",)]), 1) == [b"PONG"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lua")), ids=lambda path: path.name)
def test_every_script_says_what_it_does(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("--")]
    assert header
    if not path.name.startswith("_"):
        text = "\n".join(header)
        assert "KEYS" in text and "ARGV" in text and "Returns" in text
        assert Script(path.stem).text.endswith(path.read_text())


def test_a_key_without_lifetime_is_found(connections: Connections) -> None:
    connections.replay.set("wl:forgotten", 1)
    connections.replay.set("wl:mortal", 1, ex=10)
    assert leaked_keys(connections) == ["wl:forgotten"]
    connections.replay.flushall()


def test_settings_come_from_the_environment_and_from_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "warploom_api_key").write_text("from a secret file")
    monkeypatch.setenv("WARPLOOM_MAX_STEPS", "7")
    settings = Settings(_secrets_dir=tmp_path)
    assert settings.max_steps == 7
    assert settings.api_key == SecretStr("from a secret file") and "secret file" not in repr(settings)
    monkeypatch.setenv("WARPLOOM_API_KEY", "from the environment")
    assert Settings(_secrets_dir=tmp_path).api_key == SecretStr("from the environment")
    with pytest.raises(ValidationError):
        settings.max_steps = 8  # type: ignore[misc]


def test_logs_are_json_lines_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure_logging(Settings(log_json=True), stream=stream)
        structlog.get_logger("test").info("hello", job="job_1")
        structlog.get_logger("test").debug("quiet")
        logging.getLogger("library").warning("from %s", "elsewhere")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["job"], first["level"]) == ("hello", "job_1", "info")
    assert (second["event"], second["level"]) == ("from elsewhere", "warning")


def test_certificates_for_tls_reach_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARPLOOM_REDIS_CA", "/etc/ca one.pem")
    monkeypatch.setenv("WARPLOOM_STATE_URL", "rediss://u:p@state:6379/0")
    settings = Settings(replay_url="redis://replay:6379/0")
    again = Settings.model_validate(settings.model_dump(mode="json"))
    assert again.state_url == settings.state_url and again.replay_url == "redis://replay:6379/0"
    pool = redis.ConnectionPool.from_url(settings.state_url)
    assert pool.connection_kwargs["ssl_ca_certs"] == "/etc/ca one.pem"
    assert pool.connection_class is redis.SSLConnection
