"""Waiting for something to become true, in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], object], timeout: float = 10.0, *, what: str = "the condition") -> None:
    """Return once `predicate()` is true; fail after `timeout` seconds.

    Args:
        predicate: asked again and again.
        timeout: seconds.
        what: named in the failure.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(0.01)
