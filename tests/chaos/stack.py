"""A service to be disturbed: `python -m tests.chaos.stack HOME SUPERVISORS SHARDS`; `Victim` runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.waiting import wait_until

READY_S = 900.0
ROLES = {
    "rollout": r"^ray::RolloutWorker",
    "learner": r"^ray::LearnerWorker",
    "evaluator": r"^ray::Evaluator",
    "adapter": r"^ray::Adapter",
    "supervisor": r"python\S* -m workers$",
    "proxy": r"-m tests\.chaos\.behind_proxy",
    "api": r"python\S* -m api$",
    "raylet": r"/raylet/raylet ",
    "redis-state": r"redis/state/server\.conf|redis-server 127\.0\.0\.1:({state})$",
    "redis-replay": r"redis/replay(-\d+)?/server\.conf|redis-server 127\.0\.0\.1:({replay})$",
}


def main() -> None:
    """Run the stack, its supervisors behind proxies."""
    from service.stack import StackOptions, up

    home = Path(sys.argv[1])
    supervisor = (sys.executable, "-m", "tests.chaos.behind_proxy", sys.executable, "-m", "workers")
    up(
        StackOptions(
            home=home,
            port=0,
            rollout_cpus=64,
            ready_file=home / "ready",
            ready_s=READY_S,
            replay_shards=int(sys.argv[3]),
            commands={
                **{f"supervisor-{number}": supervisor for number in range(int(sys.argv[2]))},
                "api": (sys.executable, "-m", "api"),
            },
        )
    )


class Victim:
    """A running stack in a home of its own; a context manager.

    Args:
        home: where everything lies; the service's children know themselves by it.
        supervisors: how many, each with a Ray of its own.
        shards: replay servers.
        settings: further `WARPLOOM_…` variables.
    """

    def __init__(self, home: Path, supervisors: int = 1, shards: int = 1, **settings: str) -> None:
        self.home, self._counts = home, (str(supervisors), str(shards))
        self._servers = {"state": ["state"], "replay": ["replay", *(f"replay-{i}" for i in range(1, shards))]}
        self._env = {**os.environ, **{f"WARPLOOM_{name.upper()}": value for name, value in settings.items()}}

    def __enter__(self) -> Victim:
        self.home.mkdir(parents=True, exist_ok=True)
        self._log = (self.home / "stack.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.stack", str(self.home), *self._counts],
            env=self._env,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        ready = self.home / "ready"
        wait_until(lambda: ready.exists() or self._process.poll() is not None, READY_S, what="readiness")
        assert self._process.poll() is None, (self.home / "stack.log").read_text()
        found = json.loads((self.home / "credentials.json").read_text())
        self.http = httpx.Client(
            base_url=found["url"],
            headers={"Authorization": f"Bearer {found['api_key']}"},
            timeout=60.0,
            trust_env=False,
        )
        self._ports = {role: "|".join(map(self._port, names)) for role, names in self._servers.items()}
        self.urls = {role: ",".join(map(self._redis_url, names)) for role, names in self._servers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(90)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._log.close()

    def _config(self, role: str) -> str:
        return (self.home / "redis" / role / "server.conf").read_text()

    def _port(self, role: str) -> str:
        found = re.search(r"^port (\d+)$", self._config(role), re.MULTILINE)
        assert found
        return found.group(1)

    def _redis_url(self, role: str) -> str:
        found = re.search(r"^requirepass (\S+)$", self._config(role), re.MULTILINE)
        assert found
        return f"redis://:{found.group(1)}@127.0.0.1:{self._port(role)}/0"

    def alive(self) -> bool:
        """Whether the stack itself still runs."""
        return self._process.poll() is None

    def all(self, role: str) -> list[psutil.Process]:
        """Live processes of this stack in this role."""
        pattern = re.compile(ROLES[role].format(**self._ports))
        return [process for process, line in self._family() if pattern.search(line)]

    def _family(self) -> list[tuple[psutil.Process, str]]:
        found = []
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        for process in children:
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    # A server that names itself leaves blanks behind the name, as many as its first one was longer.
                    found.append((process, " ".join(process.cmdline()).rstrip()))
            except psutil.Error:
                continue
        return found

    def leftovers(self) -> list[str]:
        """Processes of this stack that are still there after its end, wherever they hang in the tree."""
        marker, found = f"WARPLOOM_HOME={self.home.resolve()}".encode(), []
        for process in psutil.process_iter():
            try:
                if marker in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    found.append(" ".join(process.cmdline()))
            except (OSError, psutil.Error):
                continue
        return found

    def submit(self, document: dict[str, Any], key: str, *, patience_s: float = 120.0) -> str:
        """The id of the job, once the service acknowledged it; the same key makes the same job."""
        ids: list[str] = []

        def acknowledged() -> bool:
            try:
                answer = self.http.post("/v1/jobs", json=document, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                return False
            if answer.status_code == httpx.codes.ACCEPTED:
                ids.append(str(answer.json()["id"]))
            elif not (answer.is_server_error or answer.status_code == httpx.codes.CONFLICT):
                raise RuntimeError(answer.text)
            return bool(ids)

        wait_until(acknowledged, patience_s, what=f"the acknowledgement of {key}", step_s=0.2)
        return ids[0]


if __name__ == "__main__":
    main()
