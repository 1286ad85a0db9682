"""The launcher, with small stand-ins for the supervisor and the API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

LAUNCH = """
import json, sys
from pathlib import Path
from service.stack import StackOptions, up
from warploom.errors import WarploomError
options = json.loads(sys.argv[1])
commands = {name: tuple(argv) for name, argv in options.pop("commands").items()}
paths = {name: Path(options.pop(name)) for name in ("home", "ready_file")}
try:
    up(StackOptions(**paths, **options, commands=commands))
except WarploomError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
"""
API = """
import http.server, os, signal
from pathlib import Path
home = Path(os.environ["WARPLOOM_HOME"])
with (home / "lives").open("a") as file: file.write(f"api {os.getpid()}\\n")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404); self.end_headers()
        self.wfile.write(os.environ["WARPLOOM_STATE_URL"].encode())
    def log_message(self, *args): pass
def end(*args):
    with (home / "lives").open("a") as file: file.write("api ended\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
http.server.HTTPServer(("127.0.0.1", int(os.environ["WARPLOOM_API_PORT"])), Handler).serve_forever()
"""
SUPERVISOR = """
import os, signal, subprocess
from pathlib import Path
home = Path(os.environ["WARPLOOM_HOME"])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # held until it is waited for, so that none is missed
helper = subprocess.Popen(["sleep", "1000"])
with (home / "lives").open("a") as file: file.write(f"supervisor {os.getpid()}\\nhelper {helper.pid}\\n")
while True:
    signal.sigwait({signal.SIGTERM})
    with (home / "lives").open("a") as file: file.write("supervisor ended\\n")
    os._exit(0)
"""
STUBBORN = SUPERVISOR.replace("    os._exit(0)\n", "")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Launched:
    """A launcher in a process of its own."""

    process: subprocess.Popen[str]
    home: Path

    @property
    def ready(self) -> dict[str, Any] | None:
        file = self.home / "ready.json"
        return json.loads(file.read_text()) if file.exists() else None

    def lives(self, name: str) -> list[str]:
        file = self.home / "lives"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split()[1] for line in lines if line.split()[0] == name]

    def wait_ready(self) -> str:
        wait_until(lambda: self.ready or self.process.poll() is not None, 60, what="readiness")
        assert self.ready, self.process.communicate()
        wait_until(lambda: self.lives("helper") or self.process.poll() is not None, 60, what="the supervisor")
        return str(self.ready["url"])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def redis_pids(self) -> list[int]:
        # A server renames its process to "redis-server 127.0.0.1:<port>".
        confs = (self.home / "redis").glob("*/server.conf")
        ports = [
            line.split()[1] for conf in confs for line in conf.read_text().splitlines() if line.startswith("port ")
        ]
        titles = tuple(f":{port}".encode() for port in ports)
        found = ((_read(file), int(file.parent.name)) for file in Path("/proc").glob("[0-9]*/cmdline"))
        return [pid for title, pid in found if title.rstrip(b"\0 ").endswith(titles) and b"server" in title]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


Launch = Callable[..., Launched]


@pytest.fixture
def launch(tmp_path: Path, embedded_redis: object) -> Iterator[Launch]:
    started: list[Launched] = []

    def start(*, supervisor: str = SUPERVISOR, api: str = API, **options: Any) -> Launched:
        told = {
            "home": str(tmp_path),
            "ready_file": str(tmp_path / "ready.json"),
            "port": 0,
            "grace_s": 5,
            "backoff_s": 0.05,
            "commands": {"supervisor": [sys.executable, "-c", supervisor], "api": [sys.executable, "-c", api]},
            **options,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, json.dumps(told)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("WARPLOOM_")},
        )
        started.append(Launched(process, tmp_path))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
        left = [int(pid) for name in ("api", "supervisor", "helper") for pid in one.lives(name) if pid.isdigit()]
        for pid in filter(alive, left + one.redis_pids()):  # only after a test that failed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_up_and_down_in_good_order(launch: Launch) -> None:
    stack = launch()
    url = stack.wait_ready()
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    pids = [int(pid) for name in ("api", "supervisor", "helper") for pid in stack.lives(name)] + stack.redis_pids()
    assert len(pids) >= 4 and all(map(alive, pids))
    credentials = stack.home / "credentials.json"
    stored = json.loads(credentials.read_text())
    assert stored["url"] == url and stat.S_IMODE(credentials.stat().st_mode) == 0o600
    code, out, err = stack.end()
    assert code == 0, err
    assert url in out and out.count(stored["api_key"]) == 1
    wait_until(lambda: not any(map(alive, pids)), what="the end of every process")
    ends = [line for line in (stack.home / "lives").read_text().splitlines() if line.endswith("ended")]
    assert ends == ["api ended", "supervisor ended"]
    assert not (stack.home / "ready.json").exists()


def test_the_key_is_shown_on_the_first_start_only(launch: Launch) -> None:
    keys = []
    for _ in range(2):
        stack = launch()
        stack.wait_ready()
        keys.append(json.loads((stack.home / "credentials.json").read_text())["api_key"])
        _, out, _ = stack.end(signal.SIGINT)
        assert ("wlk_" in out) == (len(keys) == 1)
    assert keys[0] == keys[1]


def test_a_child_that_dies_is_started_again(launch: Launch) -> None:
    stack = launch()
    stack.wait_ready()
    os.kill(int(stack.lives("supervisor")[0]), signal.SIGKILL)
    wait_until(lambda: len(stack.lives("supervisor")) == 2, what="the second supervisor")
    wait_until(lambda: not alive(int(stack.lives("helper")[0])), what="the end of the first one's helper")
    assert stack.end()[0] == 0


def test_a_redis_that_dies_is_started_again(launch: Launch) -> None:
    stack = launch()
    stack.wait_ready()
    before = set(stack.redis_pids())
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    wait_until(
        lambda: len(set(stack.redis_pids()) - before) == 1 and len(stack.redis_pids()) == 2, what="the new server"
    )
    assert stack.end()[0] == 0


def test_a_child_that_dies_again_and_again_ends_the_stack(launch: Launch) -> None:
    stack = launch(supervisor="raise SystemExit(7)", quick_deaths=3)
    _, err = stack.process.communicate(timeout=30)
    assert stack.process.returncode == 1
    assert "supervisor died 3 times" in err and "exit code 7" in err and "supervisor.log" in err
    assert len(list((stack.home / "redis").glob("*/server.conf"))) == 2
    wait_until(lambda: not stack.redis_pids(), what="the end of redis")


def test_nothing_survives_a_killed_launcher(launch: Launch) -> None:
    stack = launch()
    stack.wait_ready()
    pids = [int(pid) for name in ("api", "supervisor") for pid in stack.lives(name)] + stack.redis_pids()
    assert len(pids) == 4
    stack.process.kill()
    wait_until(lambda: not any(map(alive, pids)), what="the end of every process")
    for pid in map(int, stack.lives("helper")):  # the stand-in's own child is its own business
        os.kill(pid, signal.SIGKILL)


def test_a_child_that_will_not_end_is_killed(launch: Launch) -> None:
    stack = launch(supervisor=STUBBORN, grace_s=0.3)
    stack.wait_ready()
    pids = [int(pid) for name in ("supervisor", "helper") for pid in stack.lives(name)]
    assert stack.end()[0] == 0
    wait_until(lambda: not any(map(alive, pids)), what="the end of the stubborn one")


def test_a_second_signal_means_now(launch: Launch) -> None:
    stack = launch(supervisor=STUBBORN, grace_s=60)
    stack.wait_ready()
    pids = [int(pid) for name in ("supervisor", "helper") for pid in stack.lives(name)]
    stack.process.send_signal(signal.SIGINT)
    wait_until(lambda: "ended" in stack.lives("supervisor"), what="the polite request")
    assert stack.end(signal.SIGINT)[0] == 0
    wait_until(lambda: not any(map(alive, pids)), what="the end of the stubborn one")


def test_a_second_stack_on_the_same_home_is_refused(launch: Launch) -> None:
    first = launch()
    first.wait_ready()
    second = launch()
    _, err = second.process.communicate(timeout=30)
    assert second.process.returncode == 1
    assert "Conflict" in err and str(first.process.pid) in err
    assert first.end()[0] == 0


def test_a_port_that_is_taken_is_refused_before_anything_starts(launch: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stack = launch(port=port)
        _, err = stack.process.communicate(timeout=30)
    assert stack.process.returncode == 1 and f"port {port}" in err and "taken" in err
    assert not (stack.home / "redis").exists() and not (stack.home / "lives").exists()


def test_an_api_that_never_gets_ready_is_an_error(launch: Launch) -> None:
    stack = launch(api="import signal; signal.pause()", ready_s=1)
    _, err = stack.process.communicate(timeout=30)
    assert stack.process.returncode == 1 and "not ready" in err
