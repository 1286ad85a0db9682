"""What can go wrong in a running stack: each fault is done to a `Victim`, and says when it is over."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import redis

from service.urls import split_urls
from tests.chaos.stack import Victim

ACTORS = ("rollout", "learner", "evaluator", "adapter")
SERVERS = ("redis-state", "redis-replay")
KILLS = (*ACTORS, "supervisor", "api", "raylet", *SERVERS)
OTHERS = ("leave", "zombie", "cut", "delay", "disk-full")
FAULTS = (*KILLS, *OTHERS)
STOPPED_S = (1.0, 8.0)
FULL_S = 4.0
DISK_BYTES = 4 * 2**20


@dataclass
class Fault:
    """One that was done.

    Args:
        name: of `FAULTS`.
        at: monotonic seconds.
        over: whether the part works again.
        undo: what is to be done later, and when.
    """

    name: str
    at: float
    over: Callable[[], bool]
    undo: tuple[float, Callable[[], None]] | None = None


class Disk:
    """A small file system for checkpoints that can be filled up; a plain folder where it may not be mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
        self.small = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Take all room that is left."""
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error

    def free(self) -> None:
        """Give the room back."""
        (self.path / "filler").unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it."""
        if self.small:
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)


class Faults:
    """Does faults to a stack.

    Args:
        victim, disk: the stack and where its checkpoints lie.
        chance: whom it hits.
        rounds: how far each unfinished job is.
    """

    def __init__(self, victim: Victim, disk: Disk, chance: random.Random, rounds: Callable[[], dict[str, int]]) -> None:
        self._victim, self._disk, self._chance, self._rounds = victim, disk, chance, rounds

    def do(self, name: str) -> Fault | None:
        """Do it; None when there is nobody to do it to now."""
        if name in KILLS:
            return self._kill(name)
        if name == "leave":
            return self._leave()
        if name == "zombie":
            return self._stop()
        if name == "disk-full":
            return self._fill()
        return self._disturb(name, signal.SIGUSR1 if name == "cut" else signal.SIGUSR2)

    def _pick(self, role: str) -> psutil.Process | None:
        found = sorted(self._victim.all(role), key=lambda process: process.pid)
        return self._chance.choice(found) if found else None

    def _kill(self, role: str) -> Fault | None:
        process = self._pick(role)
        if process is None:
            return None
        before = {other.pid for other in self._victim.all(role)}
        adapters = {other.pid for other in self._victim.all("adapter")}
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return None
        over: Callable[[], bool] = lambda: self._another(role, before)  # noqa: E731
        if role in SERVERS:
            over = lambda: self._answers(role.removeprefix("redis-"))  # noqa: E731
        elif role == "api":
            over = self._serves
        elif role in ("supervisor", "raylet"):  # with actors of its own
            over = lambda: self._another("adapter", adapters)  # noqa: E731
        return Fault(role, time.monotonic(), over)

    def _another(self, role: str, before: set[int]) -> bool:
        return any(process.pid not in before for process in self._victim.all(role))

    def _answers(self, role: str) -> bool:
        try:
            for url in split_urls(self._victim.urls[role]):
                with redis.Redis.from_url(url, socket_timeout=1.0) as client:
                    client.execute_command("PING")
        except redis.RedisError:
            return False
        return True

    def _serves(self) -> bool:
        try:
            return self._victim.http.get("/livez", timeout=2.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _leave(self) -> Fault | None:
        """SIGTERM to a supervisor: it is asked to go."""
        process = self._pick("supervisor")
        if process is None:
            return None
        before = {other.pid for other in self._victim.all("adapter")}
        process.send_signal(signal.SIGTERM)
        return Fault("leave", time.monotonic(), lambda: self._another("adapter", before))

    def _stop(self) -> Fault | None:
        roles = ["rollout", "learner", "evaluator", "supervisor"]
        self._chance.shuffle(roles)
        process = next(filter(None, map(self._pick, roles)), None)
        if process is None:
            return None
        try:
            process.send_signal(signal.SIGSTOP)
        except psutil.NoSuchProcess:
            return None
        at = time.monotonic()
        until = at + self._chance.uniform(*STOPPED_S)
        moves = self.moves()
        return Fault("zombie", at, lambda: time.monotonic() > until and moves(), (until, lambda: _continue(process)))

    def _disturb(self, name: str, number: signal.Signals) -> Fault | None:
        proxy = self._pick("proxy")
        if proxy is None:
            return None
        moves = self.moves()
        os.kill(proxy.pid, number)
        return Fault(name, time.monotonic(), moves)

    def _fill(self) -> Fault | None:
        if not self._disk.small:
            return None
        at = time.monotonic()
        until, moves = at + FULL_S, self.moves()
        self._disk.fill()
        return Fault("disk-full", at, lambda: time.monotonic() > until and moves(), (until, self._disk.free))

    def moves(self) -> Callable[[], bool]:
        """Whether any job finished a round since now, or there is none that could."""
        before = self._rounds()

        def moved() -> bool:
            now = self._rounds()
            return not now or any(now[job] > before.get(job, 0) for job in now)

        return moved


def _continue(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return
