"""The replay buffer's throughput beside raw Redis, TorchRL's storage on Redis, and Reverb, in one run.

    python benchmarks/replay.py [--torchrl PYTHON] [--reverb PYTHON] [--repeats 5] [--megabytes 192] [--tcp] [--out DIR]

`--torchrl` and `--reverb` name interpreters of environments with these packages:

    python -m venv reverb  && reverb/bin/pip install 'dm-reverb[tensorflow]==0.14.0'
    python -m venv torchrl && torchrl/bin/pip install torchrl redis

Every contender has four processes that were started, with all their imports, before anything is timed. For each size of
chunk and number of writers all contenders take their turns within one repeat, in an order drawn anew, so that a
machine that is slower for a while is so for all of them. Writers start together; MB/s are all bytes of payload over
the time from the first start to the last end. Then one process samples. What is told is the median of the repeats, and
the median of the ratios within a repeat. All Redis contenders talk to one server over a Unix socket (`--tcp`: over the
loopback device), which is emptied before each turn; Reverb's server has a process of its own and talks gRPC over that
device.

From bytes to bytes:

    raw       SET and GET through redis-py, one command at a time
    piped     the same in pipelines of four SETs and MGETs of 32 keys (or 16 MB)
    chunks    ours: claim a unit and extend it by four chunks; samples of eight units

From tensors to tensors:

    warploom        the same with packing (header, checksum) before and checks and unpacking after it
    torchrl-add     ReplayBuffer.add and .sample over StoreStorage, one item at a time
    torchrl-extend  ReplayBuffer.extend by four items, .sample of 32
    reverb-insert   Client.insert, and Client.sample of a uniform table
    reverb-writer   one TrajectoryWriter, flushed after four items, and Client.sample
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from replay_contenders import PARTS, UNITS, raw_client
from replay_report import SIZES, WRITERS, write

from service.embedded import find_server
from service.processes import free_port

OURS = ("raw", "piped", "chunks", "warploom")
SCRIPT = str(Path(__file__).with_name("replay_contenders.py"))


class Workers:
    """The processes of one contender."""

    def __init__(self, name: str, python: str) -> None:
        self.name = name
        self._processes = [
            subprocess.Popen(  # noqa: S603
                [python, SCRIPT, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            for _ in range(max(WRITERS))
        ]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def timed(self, job: dict[str, Any], what: str, writers: int) -> float:
        """MB/s of so many processes that start together."""
        own = self._processes[:writers]
        for number, process in enumerate(own):
            _tell(process, json.dumps({**job, "what": what, "number": number}))
            if number == 0:
                self._heard(process)  # the first one empties or opens what all write to
        for process in own[1:]:
            self._heard(process)
        for process in own:
            _tell(process, "go")
        starts, ends, sizes = zip(*(self._heard(process) for process in own), strict=True)
        return float(sum(sizes) / (max(ends) - min(starts)) / 1e6)

    def _heard(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: a worker ended with {process.wait()}")
        return json.loads(line)


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


@contextmanager
def redis_server(tcp: bool) -> Iterator[str]:
    """The URL of a server that keeps everything in memory."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        where = ["--port", str(port)] if tcp else ["--port", "0", "--unixsocket", f"{folder}/s"]
        argv = [str(find_server()), *where, "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            yield f"redis://127.0.0.1:{port}" if tcp else f"unix://{folder}/s"
        finally:
            process.kill()
            process.wait()


@contextmanager
def reverb_server(python: str) -> Iterator[int]:
    """The port of Reverb's server."""
    port = free_port()
    argv = [python, SCRIPT, "reverb-server", str(port)]
    process = subprocess.Popen(  # noqa: S603
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.communicate()


def jobs(megabytes: int) -> Iterator[dict[str, Any]]:
    """Each size with each number of writers."""
    for label, size in SIZES.items():
        for writers in WRITERS:
            most = min(megabytes * 10**6 // size, 8000) // writers
            count = max(UNITS * PARTS // writers, most) // PARTS * PARTS
            yield {"chunk": label, "size": size, "writers": writers, "count": count}


def measure(contenders: list[Workers], where: dict[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """All turns."""
    rows = []
    client = _ready(where)
    order = random.Random(0)  # noqa: S311
    for repeat in range(-1, options.repeats):
        for job in jobs(options.megabytes if repeat >= 0 else 1):  # a first round that nobody counts
            for one in order.sample(contenders, len(contenders)):
                client.flushall()
                told = {"contender": one.name, **job, "repeat": repeat}
                told["write"] = one.timed({**job, **where}, "write", job["writers"])
                told["sample"] = one.timed({**job, **where}, "sample", 1)
                if repeat >= 0:
                    rows.append(told)
                    sys.stderr.write(json.dumps(told) + "\n")
    client.flushall()
    return rows


def _ready(where: dict[str, Any]) -> Any:
    deadline = time.monotonic() + 10
    while True:
        try:
            return raw_client(where)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main() -> None:
    """Measure, write `replay.md` and `replay.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchrl", metavar="PYTHON")
    parser.add_argument("--reverb", metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=192, help="of each turn, at least 32 chunks")
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--only", nargs="*", help="these contenders")
    parser.add_argument("--note", default="", help="what else the page shall say of this run")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    pythons = dict.fromkeys(OURS, sys.executable)
    pythons |= {f"torchrl-{how}": options.torchrl for how in ("add", "extend") if options.torchrl}
    pythons |= {f"reverb-{how}": options.reverb for how in ("insert", "writer") if options.reverb}
    if options.only:
        pythons = {name: pythons[name] for name in options.only}
    before, started = os.getloadavg()[0], time.monotonic()
    with ExitStack() as stack:
        where = {"url": stack.enter_context(redis_server(options.tcp))}
        if options.reverb:
            where["port"] = stack.enter_context(reverb_server(options.reverb))
        contenders = [stack.enter_context(Workers(name, python)) for name, python in pythons.items()]
        rows = measure(contenders, where, options)
    facts = {
        "repeats": options.repeats, "megabytes": options.megabytes, "tcp": options.tcp,
        "seconds": round(time.monotonic() - started), "load_before": round(before, 1),
        "note": options.note,
    }  # fmt: skip
    sys.stdout.write(write(options.out, rows, list(pythons), facts))


if __name__ == "__main__":
    main()
