"""A whole service of one's own for a while: started in a temporary folder, stopped whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from warploom.errors import SetupError, TimedOut

START_S = 120.0
STOP_S = 60.0
FOREIGN = frozenset({"WARPLOOM_API_KEY", "WARPLOOM_URL", "WARPLOOM_HOME", "WARPLOOM_STATE_URL", "WARPLOOM_REPLAY_URL"})


class Stack(NamedTuple):
    """A running service."""

    url: str
    api_key: str
    home: Path


def require_service() -> None:
    """Check that the service's code is here.

    Raises:
        SetupError: only the library is installed.
    """
    if importlib.util.find_spec("service") is None:
        raise SetupError(
            "the service's code is not installed: the wheel holds the library, the client and this command. "
            "Get a checkout of the repository and run `pip install -e '.[service]'` in it, or use the container image"
        )


@contextlib.contextmanager
def running(*, keep: bool = False, say: Callable[[str], None] = lambda _: None) -> Iterator[Stack]:
    """A service in a temporary folder on a free port.

    Args:
        keep: leave the folder (logs, models) where it is.
        say: told where the folder is and what happens.

    Raises:
        SetupError: it ended before it was ready; the message holds the end of its log.
        TimedOut: it was not ready in time.
    """
    require_service()
    with _terminable():
        home = Path(tempfile.mkdtemp(prefix="warploom-"))
        try:
            process = _start(home)
            try:
                yield _ready(process, home)
            finally:
                say("stopping the service")
                _stop(process)
        finally:
            if keep:
                say(f"kept {home}")
            else:
                shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    # By default SIGTERM ends Python without running `finally`, and the service would stay behind.
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service", "up", "--home", str(home), "--port", "0"]
    command += ["--ready-file", str(home / "ready.json")]
    with (home / "stack.log").open("wb") as log:
        # A session of its own: Ctrl-C reaches us alone, and we stop it in order.
        # Without the caller's own key: this service makes one of its own.
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)  # noqa: S603


def _ready(process: subprocess.Popen[bytes], home: Path) -> Stack:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SetupError(f"the service ended with code {process.returncode} while it started:\n{_log(home)}")
        with contextlib.suppress(OSError, ValueError, KeyError):
            url = json.loads((home / "ready.json").read_text(encoding="utf-8"))["url"]
            saved = json.loads((home / "credentials.json").read_text(encoding="utf-8"))
            return Stack(url, saved["api_key"], home)
        time.sleep(0.1)
    raise TimedOut(f"the service was not ready after {START_S:.0f} s:\n{_log(home)}")


def _log(home: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join((home / "stack.log").read_text(errors="replace").splitlines()[-15:])
    return "(no log)"


def _stop(process: subprocess.Popen[bytes]) -> None:
    with _undisturbed():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        # What it may have left of its own session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    # A second Ctrl-C while parts are stopping must not leave them behind.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
