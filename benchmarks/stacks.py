"""`warploom up` in a home of its own, for benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from warploom.client import Client

READY_S = 180.0
PARTS = {"api": "-m api", "adapter": "ray::Adapter", "redis": "redis-server"}


class Stack:
    """The whole service on a free port, from the start of the block to its end.

    Args:
        home: a new folder.
        batch: most requests that an adapter takes at once; None for the setting's default.
    """

    def __init__(self, home: Path, *, batch: int | None) -> None:
        self._home = home
        self._env = {**os.environ, **({} if batch is None else {"WARPLOOM_ADAPT_BATCH": str(batch)})}

    def __enter__(self) -> Stack:
        self._home.mkdir(parents=True)
        command = [sys.executable, "-m", "warploom.cli", "up", "--home", str(self._home), "--port", "0"]
        ready = self._home / "ready"
        with (self._home / "up.log").open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [*command, "--ready-file", str(ready)], stdout=log, stderr=log, env=self._env, start_new_session=True
            )
        try:
            self._wait_for(ready)
        except BaseException:
            self.__exit__()
            raise
        found = json.loads((self._home / "credentials.json").read_text())
        self.url, self.key = str(found["url"]), str(found["api_key"])
        return self

    def _wait_for(self, ready: Path) -> None:
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((self._home / "up.log").read_text())
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def train(self, name: str, document: dict[str, Any]) -> bytes:
        """Train a model of this name; its bytes."""
        with Client(self.url, self.key) as client:
            job = client.wait(client.submit({"name": name, **document}).id, 300)
            if job.state != "succeeded":
                raise SystemExit(f"training {name}: {job.error}")
            return client.download(name)

    def adapter(self) -> psutil.Process:
        """The process of an adapter."""
        family = psutil.Process(self._process.pid).children(recursive=True)
        return next(p for p in family if "ray::Adapter" in " ".join(p.cmdline()))

    def cpu_s(self) -> dict[str, float]:
        """Processor time so far of what answers requests: seconds by part."""
        found = dict.fromkeys(PARTS, 0.0)
        for process in psutil.Process(self._process.pid).children(recursive=True):
            line = " ".join(process.cmdline())
            for part, words in PARTS.items():
                if words in line:
                    times = process.cpu_times()
                    found[part] += times.user + times.system
        return found
