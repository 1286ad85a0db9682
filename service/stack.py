"""The whole service on one machine: its Redis servers, the supervisor, the API."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog

from service.auth import KeyRing
from service.connection import connect
from service.embedded import EmbeddedRedis, describe
from service.processes import Child, free_port, is_free, spawn
from service.settings import Settings
from warploom.errors import Conflict, SetupError

TICK_S = 0.1
PROBE_S = 0.5
ROOT = Path(__file__).resolve().parent.parent
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """How to run the embedded stack.

    Args:
        home: everything it keeps lies below; one stack at a time.
        host: address that the API listens on.
        port: port of the API; 0 for a free one.
        rollout_cpus: rollouts that run at once; None: cores, at least 16.
        adapters: adapter actors; None for the setting's default.
        replay_shards: replay servers.
        verbose: children write to our terminal and not to `home/logs`.
        ready_file: written (JSON: url, pid) once the API answers.
        commands: the children in the order in which they start; they end in reverse.
        grace_s: seconds that a child has to end in good order.
        ready_s: seconds until the API must answer.
        quick_s: a child that lives less long than this died quickly.
        quick_deaths: so many quick deaths in a row end the stack.
        backoff_s: seconds before the first restart; doubles with every quick death.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8000
    rollout_cpus: int | None = None
    adapters: int | None = None
    replay_shards: int = 1
    verbose: bool = False
    ready_file: Path | None = None
    commands: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "supervisor": (sys.executable, "-m", "workers"),
            "api": (sys.executable, "-m", "api"),
        }
    )
    grace_s: float = 20.0
    ready_s: float = 120.0
    quick_s: float = 10.0
    quick_deaths: int = 5
    backoff_s: float = 0.5


class Keeper:
    """Keeps one child alive.

    Args:
        name: for logs and messages.
        start: starts the process.
        options: backoff and when to give up.
    """

    def __init__(self, name: str, start: Callable[[], Child], options: StackOptions) -> None:
        self.name = name
        self._start = start
        self._options = options
        self._child = start()
        self._born = time.monotonic()
        self._quick = 0
        self._again_at: float | None = None

    @property
    def pid(self) -> int:
        """Of the process that lives or lived last."""
        return self._child.pid

    def tend(self) -> None:
        """Start the child again if it died and its backoff is over.

        Raises:
            SetupError: it dies quickly again and again.
        """
        now = time.monotonic()
        if self._again_at is None:
            code = self._child.code()
            if code is not None:
                self._again_at = now + self._note_death(code, now)
        elif now >= self._again_at:
            self._child, self._born, self._again_at = self._start(), now, None

    def _note_death(self, code: int, now: float) -> float:
        self._child.kill()  # whatever it left behind in its group
        self._quick = self._quick + 1 if now - self._born < self._options.quick_s else 1
        if self._quick >= self._options.quick_deaths:
            where = "" if self._options.verbose else f"; its log: {_log_file(self._options, self.name)}"
            raise SetupError(
                f"{self.name} died {self._quick} times within {self._options.quick_s:g} s of its start, last with "
                f"exit code {code}{where}"
            )
        wait_s = self._options.backoff_s * 2 ** (self._quick - 1)
        log.warning("child died", child=self.name, exit_code=code, restart_in_s=wait_s)
        return float(wait_s)

    def stop(self, grace_s: float) -> None:
        """End the child and its group."""
        self._child.stop(grace_s)

    def hurry(self) -> None:
        """End the child without grace, so that a `stop` that is waiting for it returns."""
        self._child.hurry()


def up(options: StackOptions) -> None:
    """Run the stack until SIGINT or SIGTERM; a second signal ends it without grace.

    Raises:
        Conflict: another stack runs on this home.
        SetupError: the port is taken, or a part does not start.
    """
    home = options.home.expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    stop = threading.Event()
    keepers: list[Keeper] = []
    with _lock(home), _signals(stop, keepers):
        if options.port and not is_free(options.host, options.port):
            raise SetupError(
                f"port {options.port} of {options.host} is taken: stop what listens there, or choose another (0 finds "
                "a free one)",
                field="port",
                value=options.port,
            )
        port = options.port or free_port(options.host)
        with EmbeddedRedis(home / "redis", shards=options.replay_shards) as servers:
            log.info("redis started", servers=describe(servers))
            _Stack(options, home, port, servers, stop, keepers).run()


class _Stack:
    def __init__(
        self,
        options: StackOptions,
        home: Path,
        port: int,
        servers: EmbeddedRedis,
        stop: threading.Event,
        keepers: list[Keeper],
    ) -> None:
        self._options, self._home, self._servers, self._stop = options, home, servers, stop
        host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host  # noqa: S104
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._env = self._environment(port)
        self._key = ""
        self._keepers = keepers

    def _environment(self, port: int) -> dict[str, str]:
        options = self._options
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        chosen = {
            "WARPLOOM_STATE_URL": self._servers.state_url,
            "WARPLOOM_REPLAY_URL": self._servers.replay_url,
            "WARPLOOM_HOME": str(self._home),
            "WARPLOOM_API_HOST": options.host,
            "WARPLOOM_API_PORT": str(port),
            "PYTHONPATH": path,
        }
        if options.rollout_cpus is not None:
            chosen["WARPLOOM_ROLLOUT_CPUS"] = str(options.rollout_cpus)
        if options.adapters is not None:
            chosen["WARPLOOM_ADAPTERS"] = str(options.adapters)
        return {**os.environ, **chosen}

    def run(self) -> None:
        new_key = self._make_key()
        try:
            for name, argv in self._options.commands.items():
                self._keepers.append(Keeper(name, self._starter(name, argv), self._options))
            if self._until_ready():
                self._announce(new_key)
                while not self._stop.wait(TICK_S):
                    self._tend()
        finally:
            for keeper in reversed(self._keepers):
                keeper.stop(self._options.grace_s)
            if self._options.ready_file:
                self._options.ready_file.unlink(missing_ok=True)

    def _make_key(self) -> str | None:
        settings = Settings(state_url=self._servers.state_url, replay_url=self._servers.replay_url)
        given = settings.api_key.get_secret_value() if settings.api_key else None
        connections = connect(settings)
        try:
            ring = KeyRing(connections)
            made = ring.ensure_first(given)
            known = made or given or _stored_key(self._home)
            self._key = known if known and ring.check(known) else ""
        finally:
            connections.close()
        return made

    def _starter(self, name: str, argv: tuple[str, ...]) -> Callable[[], Child]:
        log_file = None if self._options.verbose else _log_file(self._options, name)
        if log_file:
            log_file.parent.mkdir(parents=True, exist_ok=True)
        return lambda: spawn(argv, env=self._env, log=log_file)

    def _tend(self) -> None:
        for role in self._servers.dead():
            log.warning("redis died", role=role)
            self._servers.revive(role)
        for keeper in self._keepers:
            keeper.tend()

    def _until_ready(self) -> bool:
        deadline = time.monotonic() + self._options.ready_s
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with httpx.Client(base_url=self._url, headers=headers, timeout=5.0, trust_env=False) as client:
            while not self._stop.wait(PROBE_S):
                self._tend()
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/readyz").status_code == httpx.codes.OK:
                        return True
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"the API at {self._url} was not ready within {self._options.ready_s:g} s; logs: "
                        f"{self._home / 'logs'}"
                    )
        return False

    def _announce(self, new_key: str | None) -> None:
        _write(self._home / "credentials.json", {"url": self._url, "api_key": self._key or None})
        lines = [f"Warploom is up at {self._url}"]
        if new_key:
            lines.append(f"API key (shown only now; also in {self._home / 'credentials.json'}): {new_key}")
        elif not self._key:
            lines.append("the API key of an earlier start is needed; set WARPLOOM_API_KEY to replace it")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        if self._options.ready_file:
            _write(self._options.ready_file, {"url": self._url, "pid": os.getpid()})


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    with (home / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Conflict(
                f"another stack (process {file.read().strip() or 'unknown'}) runs on {home}: stop it, or choose "
                "another home",
                field="home",
                rule="one stack per home",
                value=str(home),
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _signals(stop: threading.Event, keepers: list[Keeper]) -> Iterator[None]:
    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():  # asked twice: no grace
            for keeper in keepers:
                keeper.hurry()
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log_file(options: StackOptions, name: str) -> Path:
    return options.home.expanduser().resolve() / "logs" / f"{name}.log"


def _stored_key(home: Path) -> str | None:
    try:
        key = json.loads((home / "credentials.json").read_text(encoding="utf-8"))["api_key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) else None


def _write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    draft.replace(path)
