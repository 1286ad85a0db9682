"""How many open event streams one API process holds, and how late events come to them.

    python -m benchmarks.event_streams --streams 1000 --jobs 20 --events 50

Starts two Redis servers and one API process, measures how long that takes to answer, opens the streams over plain
sockets, writes events to every job, and checks that every stream got every event once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.connection import Connections, connect
from service.embedded import EmbeddedRedis
from service.events import EventLog
from service.jobs import JobStore
from service.processes import free_port
from service.settings import Settings
from warploom.spec import JobSpec

KEY = "wlk_benchmark_of_event_streams"
SPEC = {"algorithm": "maml", "task": "sinusoid", "model": "mlp"}
PAUSE_S = 0.2


@contextmanager
def served(settings: Settings) -> Iterator[tuple[psutil.Process, int, dict[str, float]]]:
    """An API process, its port, and what its start cost."""
    port = free_port("127.0.0.1")
    env = {
        **os.environ,
        "WARPLOOM_STATE_URL": settings.state_url,
        "WARPLOOM_REPLAY_URL": settings.replay_url,
        "WARPLOOM_HOME": str(settings.home),
        "WARPLOOM_API_KEY": KEY,
        "WARPLOOM_API_PORT": str(port),
    }
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "api"], env=env)
    try:
        while not _alive(port):
            if process.poll() is not None or time.monotonic() - begin > 60:
                raise SystemExit("the API did not start")
            time.sleep(0.01)
        watched = psutil.Process(process.pid)
        spent = watched.cpu_times()
        yield watched, port, {"start_s": time.monotonic() - begin, "start_cpu_s": spent.user + spent.system}
    finally:
        process.terminate()
        process.wait(30)


def _alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=1).is_success
    except httpx.TransportError:
        return False


async def stream(port: int, job: str, ready: asyncio.Semaphore, wanted: int) -> tuple[list[int], list[float]]:
    """One open stream until `wanted` rounds came: their numbers, and how late each was in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nAccept: text/event-stream"
    writer.write(f"{head}\r\n\r\n".encode())
    numbers, late = [], []
    opened = False
    while len(numbers) < wanted:
        line = await reader.readline()
        if not line:
            raise SystemExit(f"a stream of {job} ended after {len(numbers)} rounds")
        if not opened and line.startswith(b": connected"):
            opened = True
            ready.release()
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["kind"] == "round":
                numbers.append(event["data"]["meta_step"])
                late.append(time.time() - event["data"]["told"])
    writer.close()
    return numbers, late


async def measure(port: int, jobs: list[str], log: EventLog, streams: int, events: int) -> dict[str, Any]:
    """Open all streams, then write; every stream must see every round of its job once and in order."""
    ready = asyncio.Semaphore(0)
    begin = time.monotonic()
    tasks = [asyncio.create_task(stream(port, jobs[i % len(jobs)], ready, events)) for i in range(streams)]
    for _ in range(streams):
        await ready.acquire()
    opened = time.monotonic() - begin
    begin = time.monotonic()
    for step in range(events):
        for job in jobs:
            data = {"meta_step": step, "told": time.time()}
            await asyncio.to_thread(log.append, job, "round", data, generation=1)
        await asyncio.sleep(PAUSE_S)
    found = await asyncio.gather(*tasks)
    if any(numbers != list(range(events)) for numbers, _ in found):
        raise SystemExit("a stream missed an event, or got one twice")
    late = sorted(value for _, values in found for value in values)
    return {
        "opened_s": opened,
        "events_a_second": streams * events / (time.monotonic() - begin),
        **{f"late_p{share}_ms": 1000 * late[int(len(late) * share / 100)] for share in (50, 95, 99)},
    }


def run(streams: int, jobs: int, events: int) -> dict[str, Any]:
    """All figures."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * streams + 1000, _hard()), _hard()))
    with tempfile.TemporaryDirectory(prefix="warploom-streams-") as folder:
        servers = EmbeddedRedis(Path(folder))
        servers.start()
        try:
            settings = Settings(state_url=servers.state_url, replay_url=servers.replay_url, home=Path(folder) / "home")
            connections = connect(settings)
            with served(settings) as (process, port, start):
                return _figures(connections, process, port, start, streams, jobs, events)
        finally:
            servers.stop()


def _figures(
    connections: Connections, process: psutil.Process, port: int, start: dict[str, float], *counts: int
) -> dict[str, Any]:
    streams, jobs, events = counts
    store, log = JobStore(connections), EventLog(connections)
    made = [store.create(JobSpec.parse(SPEC)).id for _ in range(jobs)]
    for _ in made:
        store.claim("benchmark", 3600)
    before, quiet = process.memory_info().rss, len(connections.state.client_list())
    spent = process.cpu_times()
    figures = asyncio.run(measure(port, made, log, streams, events))
    after = process.cpu_times()
    return {
        **start,
        **figures,
        "streams": streams,
        "api_cpu_s": after.user + after.system - spent.user - spent.system,
        "kib_a_stream": (process.memory_info().rss - before) / streams / 1024,
        "redis_connections_added": len(connections.state.client_list()) - quiet,
    }


def _hard() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--events", type=int, default=50)
    chosen = parser.parse_args()
    found = run(chosen.streams, chosen.jobs, chosen.events)
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
