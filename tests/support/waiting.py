"""Waiting for something to become true, in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimedOut(AssertionError):
    """What was waited for did not come."""


def wait_until(
    predicate: Callable[[], object], timeout: float = 10.0, *, what: str = "the condition", step_s: float = 0.01
) -> None:
    """Return once `predicate()` is true; fail after `timeout` seconds.

    Args:
        predicate: asked again and again.
        timeout: seconds.
        what: named in the failure.
        step_s: seconds between two questions; more where a question is dear.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise TimedOut(f"{what} did not come true within {timeout} s")
        time.sleep(step_s)
