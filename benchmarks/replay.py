"""The replay buffer's throughput beside raw Redis, TorchRL's storage on Redis, and Reverb, in one run.

    python benchmarks/replay.py [--torchrl PYTHON] [--reverb PYTHON] [--repeats 7] [--megabytes 192] [--out FOLDER]

`--torchrl` and `--reverb` name interpreters of environments with these packages:

    python -m venv reverb  && reverb/bin/pip install 'dm-reverb[tensorflow]==0.14.0'
    python -m venv torchrl && torchrl/bin/pip install torchrl redis

For each size of chunk and number of writers every contender runs in turn, `--repeats` times over, so that a machine
that is slower for a while is so for all of them. Writers are processes that start together; a run's MB/s are all bytes
over the time from the first start to the last end. Then one process samples as many bytes as were written. What is told
is the median of the runs, and of the ratios within each repeat. All Redis contenders talk to one server over a Unix
socket, which is emptied before each run; Reverb's server has a process of its own and talks gRPC over the loopback
device.

    raw       SET and GET through redis-py, one command at a time
    warploom  claim and extend, by units of four chunks, of the service's replay; samples of eight units
    torchrl   ReplayBuffer.add and ReplayBuffer.sample over StoreStorage
    reverb    Client.insert and Client.sample of a uniform table, without compression turned off
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SIZES = {"5 KB": 5_000, "450 KB": 450_000, "4.5 MB": 4_500_000}
WRITERS = (1, 2, 4)
PARTS = 4
UNITS = 8
CONTENDERS = ("raw", "warploom", "torchrl", "reverb")
Worker = Callable[[dict[str, Any], int], Callable[[], int]]
"""Connects and prepares (job, number of the writer); what it returns does the work and says how many bytes."""


def payload(size: int, seed: int) -> bytes:
    """Bytes like weights: float32 from a normal distribution, which do not compress."""
    import numpy as np

    return np.random.default_rng(seed).standard_normal(size // 4, dtype=np.float32).tobytes()


def raw_client(job: dict[str, Any]) -> Any:
    """A plain client of redis-py."""
    import redis

    return redis.Redis(unix_socket_path=job["socket"], protocol=2)


def raw_write(job: dict[str, Any], number: int) -> Callable[[], int]:
    """SET."""
    client, blob = raw_client(job), payload(job["size"], number)
    client.ping()

    def work() -> int:
        for i in range(job["count"]):
            client.set(f"raw:{number}:{i}", blob)
        return job["count"] * len(blob)

    return work


def raw_sample(job: dict[str, Any], _number: int) -> Callable[[], int]:
    """GET of random keys."""
    client = raw_client(job)
    client.ping()
    keys = [f"raw:{w}:{i}" for w in range(job["writers"]) for i in range(job["count"])]
    chosen = random.Random(0).choices(keys, k=len(keys))  # noqa: S311
    return lambda: sum(len(client.get(key)) for key in chosen)


def our_replay(job: dict[str, Any]) -> Any:
    """The service's buffer for a job whose window holds everything."""
    from service.connection import Connections, connect
    from service.replay import RedisReplay
    from service.settings import Settings
    from warploom.replay import ReplayPlan

    units = job["count"] * job["writers"] // PARTS
    plan = ReplayPlan(
        mode="async", units_per_round=UNITS, rounds=10**6, max_bytes=2**36, samples_per_insert=4.0,
        ahead=max(1, -(-units // UNITS)),
    )  # fmt: skip
    url = f"unix://{job['socket']}"
    connections: Connections = connect(Settings(state_url=url, replay_url=url))
    return RedisReplay(connections, "job_00000000000000000000", 1, plan)


def warploom_write(job: dict[str, Any], number: int) -> Callable[[], int]:
    """Claim a unit and append its chunks."""
    from warploom.replay import Chunk

    replay, blob = our_replay(job), payload(job["size"], number)
    if number == 0:
        replay.reset(0)
        replay.publish(0, b"meta")

    def work() -> int:
        for _ in range(job["count"] // PARTS):
            unit = replay.claim(f"w{number}").unit
            answers = replay.extend([Chunk(unit, part, PARTS, 0, blob) for part in range(PARTS)])
            if answers != ["accepted"] * PARTS:
                raise RuntimeError(f"chunks were not accepted: {answers}")
        return job["count"] * len(blob)

    return work


def warploom_sample(job: dict[str, Any], _number: int) -> Callable[[], int]:
    """Samples of eight units."""
    replay = our_replay(job)
    replay.stats()

    def work() -> int:
        read, seed = 0, 0
        while read < job["count"] * job["writers"] * job["size"]:
            taken = replay.sample(UNITS, seed)
            if taken is None:
                raise RuntimeError("nothing to sample")
            read += sum(len(part) for unit in taken for part in unit.parts)
            seed += 1
        return read

    return work


def torchrl_buffer(job: dict[str, Any], number: int) -> Any:
    """TorchRL's buffer over its storage on a Redis-compatible server."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import ReplayBuffer, StoreStorage

    storage = StoreStorage(job["count"], unix_socket_path=job["socket"], prefix=f"torchrl{number}")
    buffer = ReplayBuffer(storage=storage, batch_size=1)
    values = torch.frombuffer(bytearray(payload(job["size"], number)), dtype=torch.float32)
    return buffer, TensorDict({"theta": values}, [])


def torchrl_write(job: dict[str, Any], number: int) -> Callable[[], int]:
    """ReplayBuffer.add."""
    buffer, item = torchrl_buffer(job, number)
    buffer.add(item)  # makes the storage

    def work() -> int:
        for _ in range(job["count"]):
            buffer.add(item)
        return job["count"] * job["size"]

    return work


def torchrl_sample(job: dict[str, Any], number: int) -> Callable[[], int]:
    """ReplayBuffer.sample of what this process wrote before: the buffer's length is known to its process only."""
    buffer, item = torchrl_buffer(job, number)
    for _ in range(job["count"]):
        buffer.add(item)

    def work() -> int:
        return sum(buffer.sample()["theta"].numel() * 4 for _ in range(job["count"]))

    return work


def reverb_write(job: dict[str, Any], number: int) -> Callable[[], int]:
    """Client.insert."""
    import numpy as np
    import reverb

    client = reverb.Client(f"localhost:{job['port']}")
    array = np.frombuffer(payload(job["size"], number), np.float32)
    client.server_info()

    def work() -> int:
        for _ in range(job["count"]):
            client.insert([array], {"replay": 1.0})
        return job["count"] * array.nbytes

    return work


def reverb_sample(job: dict[str, Any], _number: int) -> Callable[[], int]:
    """Client.sample, as many items as were written."""
    import reverb

    client = reverb.Client(f"localhost:{job['port']}")
    client.server_info()

    def work() -> int:
        wanted = job["count"] * job["writers"]
        return sum(item.data[0].nbytes for sample in client.sample("replay", wanted) for item in sample)

    return work


def reverb_server(port: int, most: int, ready: Any, stop: Any) -> None:
    """A uniform table in a process of its own."""
    import reverb

    table = reverb.Table(
        "replay", sampler=reverb.selectors.Uniform(), remover=reverb.selectors.Fifo(), max_size=most,
        rate_limiter=reverb.rate_limiters.MinSize(1),
    )  # fmt: skip
    server = reverb.Server([table], port=port)
    ready.set()
    stop.wait()
    server.stop()


def _together(make: Worker, job: dict[str, Any], number: int, barrier: Any, told: Any) -> None:
    work = make(job, number)
    barrier.wait()
    start = time.monotonic()
    size = work()
    told.put((start, time.monotonic(), size))


def timed(make: Worker, job: dict[str, Any], writers: int) -> float:
    """MB/s of so many processes that start together."""
    context = get_context("spawn")
    barrier, told = context.Barrier(writers), context.Queue()
    processes = [context.Process(target=_together, args=(make, job, n, barrier, told)) for n in range(writers)]
    for process in processes:
        process.start()
    rows = []
    while len(rows) < writers:
        if any(process.exitcode for process in processes):
            raise SystemExit("a worker died")
        if not told.empty():
            rows.append(told.get())
        time.sleep(0.01)
    for process in processes:
        process.join()
    starts, ends, sizes = zip(*rows, strict=True)
    return float(sum(sizes) / (max(ends) - min(starts)) / 1e6)


def one_run(job: dict[str, Any]) -> dict[str, float]:
    """Writes, then samples, of one contender in this interpreter."""
    name = job["contender"]
    write, sample = globals()[f"{name}_write"], globals()[f"{name}_sample"]
    if name != "reverb":
        return {"write": timed(write, job, job["writers"]), "sample": timed(sample, job, 1)}
    context = get_context("spawn")
    ready, stop = context.Event(), context.Event()
    server = context.Process(target=reverb_server, args=(job["port"], job["count"] * job["writers"], ready, stop))
    server.start()
    ready.wait()
    try:
        return {"write": timed(write, job, job["writers"]), "sample": timed(sample, job, 1)}
    finally:
        stop.set()
        server.join(10)
        server.kill()


def start_redis(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A memory-only server on a Unix socket."""
    from service.embedded import find_server

    socket = str(folder / "redis.sock")
    argv = [str(find_server()), "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(  # noqa: S603
        [*argv, "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    while not Path(socket).exists():
        time.sleep(0.01)
    return server, socket


def measure(pythons: dict[str, str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """All runs, contenders in turn."""
    from service.processes import free_port

    rows = []
    with tempfile.TemporaryDirectory() as name:
        server, socket = start_redis(Path(name))
        try:
            for repeat in range(options.repeats):
                for label, size in SIZES.items():
                    for writers in WRITERS:
                        per_writer = options.megabytes * 10**6 // size // writers
                        count = max(2 * UNITS * PARTS // writers, min(per_writer, 4000 // writers)) // PARTS * PARTS
                        for contender in pythons:
                            job = {
                                "contender": contender, "size": size, "writers": writers, "count": count,
                                "socket": socket, "port": free_port(),
                            }  # fmt: skip
                            raw_client(job).flushall()
                            row = {"repeat": repeat, "chunk": label, **job, **_in_own_process(pythons, job)}
                            rows.append({key: row[key] for key in row if key not in ("socket", "port")})
                            sys.stderr.write(json.dumps(rows[-1]) + "\n")
        finally:
            server.kill()
            server.wait()
    return rows


def _in_own_process(pythons: dict[str, str], job: dict[str, Any]) -> dict[str, float]:
    argv = [pythons[job["contender"]], __file__, "--run", json.dumps(job)]
    done = subprocess.run(  # noqa: S603
        argv, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        sys.stderr.write(f"{job['contender']} failed: {done.stderr[-2000:]}\n")
        return {"write": float("nan"), "sample": float("nan")}
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(rows: list[dict[str, Any]], what: str, contenders: list[str]) -> list[str]:
    """A Markdown table of medians, and of our ratio to each other contender."""
    others = [name for name in contenders if name != "warploom"]
    head = ["chunk", "writers", *contenders, *(f"ours / {name}" for name in others)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for chunk in SIZES:
        for writers in WRITERS:
            cell = [row for row in rows if (row["chunk"], row["writers"]) == (chunk, writers)]
            runs = {name: {r["repeat"]: r[what] for r in cell if r["contender"] == name} for name in contenders}
            shown = [f"{statistics.median(runs[name].values()):,.0f}" for name in contenders]
            ratios = [statistics.median(runs["warploom"][i] / runs[name][i] for i in runs[name]) for name in others]
            lines.append("| " + " | ".join([chunk, str(writers), *shown, *(f"{r:.2f}" for r in ratios)]) + " |")
    return lines


def report(rows: list[dict[str, Any]], contenders: list[str], options: argparse.Namespace) -> str:
    """The page for the docs."""
    load = os.getloadavg()[0]
    command = f"python benchmarks/replay.py --repeats {options.repeats} --megabytes {options.megabytes}"
    extra = "".join(f" --{name} …" for name in contenders if name in ("torchrl", "reverb"))
    return "\n".join(
        [
            "# Replay throughput",
            "",
            f"`{command}{extra}`",
            "",
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; load average at the "
            f"end {load:.1f}. MB/s, medians of {options.repeats} interleaved runs; ratios are medians of the ratios "
            "within a repeat. How each is measured stands at the top of the script.",
            "",
            "## Writes",
            "",
            *table(rows, "write", contenders),
            "",
            "## Samples",
            "",
            *table(rows, "sample", contenders),
            "",
        ]
    )


def main() -> None:
    """Measure, write `replay.md` and `replay.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run")
    parser.add_argument("--torchrl")
    parser.add_argument("--reverb")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=192)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if options.run:
        sys.stdout.write(json.dumps(one_run(json.loads(options.run))) + "\n")
        return
    given = {"raw": sys.executable, "warploom": sys.executable, "torchrl": options.torchrl, "reverb": options.reverb}
    pythons = {name: python for name, python in given.items() if python}
    rows = measure(pythons, options)
    text = report(rows, list(pythons), options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "replay.json").write_text(json.dumps(rows, indent=1))
    (options.out / "replay.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
