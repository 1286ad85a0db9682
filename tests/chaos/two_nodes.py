"""`python -m tests.chaos.two_nodes`: two Ray nodes, and the cable between them is pulled. Needs root and `ip`.

The head, both Redis servers and the supervisor are one side, a Ray node in a network namespace of its own the other.
While a job runs with rollouts on both, the link goes down. The job must go on with the rest; when the link is up again
the node must come back, and rollouts must run there again; and the weights must be those of a run in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from service.connection import Connections, connect
from service.embedded import find_server
from service.events import EventLog
from service.jobs import JobStore
from service.models import ModelStore
from service.processes import Child, spawn
from service.settings import Settings
from tests.support.waiting import wait_until
from warploom.codec import unpack_model
from warploom.local import train
from warploom.records import FINAL_STATES
from warploom.spec import JobSpec

NEAR, FAR, PORT = "10.77.0.1", "10.77.0.2", 9379
ROLES = {"state": (9380, "appendonly yes\nappendfsync always\n"), "replay": (9381, "appendonly no\n")}
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # As in docker-compose.yml.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_scheduler_spread_threshold": "0",
    "RAY_worker_niceness": "0",
}
STEP_S = 0.2


class Cable:
    """A network namespace, joined to ours by a pair of interfaces; a context manager."""

    def __init__(self) -> None:
        tag = secrets.token_hex(2)
        self.namespace, self._near, self._far = f"wl-{tag}", f"wl-n{tag}", f"wl-f{tag}"

    def __enter__(self) -> Cable:
        ip("netns", "add", self.namespace)
        ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.namespace)
        ip("addr", "add", f"{NEAR}/24", "dev", self._near)
        ip("link", "set", self._near, "up")
        for command in (("addr", "add", f"{FAR}/24", "dev", self._far), ("link", "set", self._far, "up")):
            ip("-n", self.namespace, *command)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ip("netns", "del", self.namespace)

    def pull(self) -> None:
        """Nothing goes through any more."""
        ip("link", "set", self._near, "down")

    def plug(self) -> None:
        """As before."""
        ip("link", "set", self._near, "up")

    def pids(self) -> list[int]:
        """Processes on the far side."""
        return [int(pid) for pid in ip("netns", "pids", self.namespace).split()]

    def rollouts(self) -> set[int]:
        """Rollouts on the far side."""
        return {pid for pid in self.pids() if _title(pid).startswith("ray::RolloutWorker")}


def ip(*words: str) -> str:
    """Run `ip` and give what it says."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


class Cluster:
    """Both Redis servers, the Ray head and the supervisor on the near side, a Ray node on the far side.

    Args:
        home: an empty folder.
        cable: between the sides.
    """

    def __init__(self, home: Path, cable: Cable) -> None:
        self.home, self._cable = home, cable
        self._password = secrets.token_urlsafe(12)
        self._env = {**os.environ, **RAY, "RAY_AUTH_TOKEN": secrets.token_hex(32), "WARPLOOM_HOME": str(home)}
        self._children: list[Child] = []
        self._node: Child | None = None

    def __enter__(self) -> Cluster:
        self.settings = Settings(state_url=self._redis("state"), replay_url=self._redis("replay"), home=self.home)
        self._env |= {"WARPLOOM_STATE_URL": self.settings.state_url, "WARPLOOM_REPLAY_URL": self.settings.replay_url}
        self._env |= {"WARPLOOM_ADAPTERS": "0"}
        self.connections: Connections = connect(self.settings)
        start = ("--head", f"--port={PORT}", f"--temp-dir={self.home / 'r'}", "--include-dashboard=false")
        self._children.append(self._ray("head", (), NEAR, *start))
        until(lambda: _listens(NEAR, PORT), 120, "the head")
        supervisor = (sys.executable, "-m", "workers")
        env = {**self._env, "RAY_ADDRESS": f"{NEAR}:{PORT}"}
        self.tend()
        self._children.append(spawn(supervisor, env=env, log=self.home / "supervisor.log"))
        return self

    def __exit__(self, *_: object) -> None:
        self.connections.close()
        for child in filter(None, (*reversed(self._children), self._node)):
            child.stop(20.0)

    def tend(self) -> None:
        """Start the far node, again if it ended: what a restart policy does."""
        if self._node is None or self._node.code() is not None:
            inside = ("ip", "netns", "exec", self._cable.namespace)
            self._node = self._ray("node", inside, FAR, f"--address={NEAR}:{PORT}")

    def _ray(self, name: str, inside: tuple[str, ...], address: str, *words: str) -> Child:
        ray = str(Path(sys.executable).parent / "ray")
        fixed = ("--block", "--disable-usage-stats", "--include-log-monitor=false", "--object-store-memory=134217728")
        command = (*inside, ray, "start", *fixed, f"--node-ip-address={address}", "--num-cpus=2", *words)
        return spawn(command, env=self._env, log=self.home / f"{name}.log")

    def _redis(self, role: str) -> str:
        port, durability = ROLES[role]
        folder = self.home / role
        folder.mkdir()
        config = folder / "server.conf"
        config.write_text(
            f'bind {NEAR}\nport {port}\nrequirepass {self._password}\nsave ""\ndir {folder}\n{durability}'
        )
        self._children.append(spawn((str(find_server()), str(config)), log=folder / "server.log"))
        return f"redis://:{self._password}@{NEAR}:{port}/0"


def _listens(host: str, port: int) -> bool:
    return any(
        one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN
        for one in psutil.net_connections("tcp")
    )


def until(true: Callable[[], object], seconds: float, what: str, tend: Callable[[], None] = lambda: None) -> float:
    """Wait; the seconds that it took."""
    started = time.monotonic()

    def tended() -> bool:
        if true():
            return True
        tend()
        return False

    wait_until(tended, seconds, what=what, step_s=STEP_S)
    return time.monotonic() - started


def document(rounds: int) -> dict[str, Any]:
    """A job with two rollouts for each node."""
    return {
        "algorithm": {"name": "maml", "inner_lr": 0.01, "inner_steps": 3, "outer": "adam"},
        "task": "sinusoid",
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"rounds": rounds, "meta_batch": 8, "unit": 1, "rollouts": 4, "checkpoint_every": 20},
        "evaluation": {"every": rounds, "tasks": 4},
        "resources": {"learner_threads": 1},
    }


def run(home: Path, rounds: int) -> Iterator[str]:
    """The whole of it; what happens, line by line.

    Args:
        home: an empty folder with a short path, because Ray's sockets lie in it.
        rounds: enough that the job outlives the outage; it is cancelled to measure nothing else.
    """
    with Cable() as cable, Cluster(home, cable) as cluster:
        jobs, events = JobStore(cluster.connections), EventLog(cluster.connections)
        job_id = jobs.create(JobSpec.parse(document(rounds))).id

        def done() -> int:
            return jobs.get(job_id).progress.meta_step

        def lost() -> bool:
            return any(event.kind == "worker_lost" for event in events.list(job_id, limit=10_000))

        took = until(lambda: done() >= 3 and cable.rollouts(), 600, "rollouts on both sides", cluster.tend)
        before = cable.rollouts()
        yield f"after {took:.0f} s the job is at round {done()}, {len(before)} of 4 rollouts on the far node"
        cable.pull()
        at = done()
        took = until(lambda: done() >= at + 2, 600, "a round without the far node")
        yield f"cable pulled at round {at}; two rounds more after {took:.1f} s"
        took += until(lost, 120, "the loss of the far rollouts")
        at = done()
        until(lambda: done() >= at + 5, 600, "rounds without the far node")
        yield f"rollouts given up {took:.1f} s after the cable was pulled; at round {done()} with the near node alone"
        cable.plug()
        took = until(lambda: cable.rollouts() - before, 600, "a rollout on the node that came back", cluster.tend)
        yield f"cable back: {len(cable.rollouts() - before)} new rollouts on the far node after {took:.1f} s"
        at = done()
        until(lambda: done() >= at + 5 or jobs.get(job_id).state in FINAL_STATES, 600, "rounds with both")
        until(lambda: jobs.get(job_id).state in FINAL_STATES, 1200, "the end", cluster.tend)
        job = jobs.get(job_id)
        yield f"{job.state} after {job.generation} generation(s): {job.error or 'no error'}"
        _, meta = unpack_model(ModelStore(cluster.connections).blob(job.name, 1))
        torch.set_num_threads(1)
        expected = train(JobSpec.parse(document(rounds))).meta.params
        if not all(torch.equal(meta.params[name], expected[name]) for name in expected):
            raise AssertionError("other weights than those of a run in one process")
        yield "the weights are those of a run in one process, bit for bit"


def main() -> int:
    """0 when all of it came true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="wl2n-"))
    try:
        for line in run(home, given.rounds):
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            sys.stdout.flush()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
