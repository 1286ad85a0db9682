"""Is a job that was acknowledged still there when Redis dies right after? `python -m tests.chaos.submissions`.

The state server runs as `warploom up` runs it (append-only file, fsync on every write). The real API takes each
submission over HTTP; the moment its 202 is read, the state server gets SIGKILL. It is started again with what is on its
disk, and every job that was ever acknowledged is asked for by the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.connection import connect
from service.embedded import EmbeddedRedis
from service.jobs import JobStore
from service.processes import Child, free_port, spawn
from service.settings import Settings
from tests.support.waiting import wait_until

KEY = "wlk_" + "0" * 20 + "_" + "k" * 43
JOB = {"algorithm": "none", "task": "sinusoid", "model": "mlp"}
ANSWER_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        acknowledged: ids of the jobs that got a 202.
        lost: those of them that are gone.
        twice: jobs that are there without an acknowledgement of their own (a repeat made a second one).
        away_s: for each kill, seconds until the next submission was acknowledged.
    """

    acknowledged: list[str]
    lost: list[str]
    twice: list[str]
    away_s: list[float]


def run(home: Path, submissions: int) -> Outcome:
    """Submit, kill, start again, `submissions` times.

    Args:
        home: an empty folder on the disk that is to be trusted.
        submissions: how many.
    """
    with EmbeddedRedis(home / "redis") as servers:
        url, api = _start_api(home, servers)
        headers = {"Authorization": f"Bearer {KEY}"}
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S, trust_env=False) as client:
                _until_ready(client)
                ids, away_s = _rounds(client, servers, submissions)
        finally:
            api.stop(5.0)
        return _count(servers, ids, away_s)


def _start_api(home: Path, servers: EmbeddedRedis) -> tuple[str, Child]:
    port = free_port()
    env = {
        **os.environ,
        "WARPLOOM_STATE_URL": servers.state_url,
        "WARPLOOM_REPLAY_URL": servers.replay_url,
        "WARPLOOM_API_PORT": str(port),
        "WARPLOOM_API_KEY": KEY,
        "WARPLOOM_HOME": str(home),
    }
    return f"http://127.0.0.1:{port}", spawn((sys.executable, "-m", "api"), env=env, log=home / "api.log")


def _until_ready(client: httpx.Client) -> None:
    def lives() -> bool:
        try:
            return client.get("/livez").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    wait_until(lives, 120.0, what="the start of the API", step_s=0.1)


def _rounds(client: httpx.Client, servers: EmbeddedRedis, submissions: int) -> tuple[list[str], list[float]]:
    ids, away_s = [], []
    killed_at: float | None = None
    for number in range(submissions):
        ids.append(_submit(client, f"kill-{number}"))
        if killed_at is not None:
            away_s.append(time.monotonic() - killed_at)
        killed_at = time.monotonic()
        os.kill(servers.pid("state"), signal.SIGKILL)
        servers.revive("state")
    return ids, away_s


def _submit(client: httpx.Client, key: str) -> str:
    ids: list[str] = []

    def acknowledged() -> bool:
        answer = client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": key})
        if answer.status_code == httpx.codes.ACCEPTED:
            ids.append(str(answer.json()["id"]))
        elif not answer.is_server_error:
            raise RuntimeError(f"{answer.status_code}: {answer.text}")
        return bool(ids)

    wait_until(acknowledged, ANSWER_S, what=f"the acknowledgement of {key}", step_s=0.05)
    return ids[0]


def _count(servers: EmbeddedRedis, ids: list[str], away_s: list[float]) -> Outcome:
    connections = connect(Settings(state_url=servers.state_url, replay_url=servers.replay_url))
    try:
        store, there, after = JobStore(connections), [], None
        while True:
            page = store.list(limit=1000, after=after)
            there += [job.id for job in page.data if job.state == "queued"]
            if not page.has_more:
                break
            after = page.data[-1].id
    finally:
        connections.close()
    return Outcome(ids, sorted(set(ids) - set(there)), sorted(set(there) - set(ids)), away_s)


def main() -> int:
    """0 when none was lost and none made twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="warploom-kill-") as scratch:
        started = time.monotonic()
        outcome = run(Path(scratch), given.submissions)
    sys.stdout.write(
        f"{len(outcome.acknowledged)} acknowledged, each followed by SIGKILL of the state server: {len(outcome.lost)} "
        f"lost, {len(outcome.twice)} made twice; from a kill to the next acknowledgement: median "
        f"{statistics.median(outcome.away_s):.2f} s, worst {max(outcome.away_s):.2f} s; in all "
        f"{time.monotonic() - started:.0f} s\n"
    )
    return 1 if outcome.lost or outcome.twice else 0


if __name__ == "__main__":
    sys.exit(main())
