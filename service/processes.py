"""Child processes that never outlive us: own session, own log, killed by the kernel when we die."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(argv: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None) -> Child:
    """Start a process as the leader of its own session.

    Call it from the main thread: the kernel ties the child's life to the thread that started it.

    Args:
        argv: the command.
        env: its whole environment; None for ours.
        log: file that its output is appended to; None for our own output.
    """
    parent = os.getpid()

    def tie() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # we died before the kernel was told
                os._exit(1)

    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("ab")) if log else None
        process = subprocess.Popen(  # noqa: S603
            list(argv),
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if out else None,
            start_new_session=True,
            preexec_fn=tie,  # noqa: PLW1509
        )
    return Child(process)


class Child:
    """A process that `spawn` started, and whatever it started in its group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the leader."""
        return self._process.pid

    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the leader, and after `grace_s` seconds (or its end) SIGKILL to all that is left."""
        if self.code() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait for the leader's end."""
        self.hurry()
        self._process.wait()

    def hurry(self) -> None:
        """SIGKILL to the whole group; does not wait, so that a signal handler may call it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within `timeout_s` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.code() is not None


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nobody listens on right now."""
    with socket.create_server((host, 0), family=_family(host)) as server:
        return int(server.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether `port` of `host` can be listened on."""
    try:
        with socket.create_server((host, port), family=_family(host)):
            return True
    except OSError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
