"""Doing what a Redis server that is away cannot answer, once it is back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from warploom.errors import Unavailable

log = structlog.get_logger()
Answer = TypeVar("Answer")
PATIENCE_S = 300.0  # an actor waits so long for Redis before it gives up
AGAIN_S = 1.0


def insist(
    do: Callable[[], Answer], whose: str, *, unless: Callable[[], bool] = lambda: False, most_s: float = math.inf
) -> Answer:
    """The answer of `do`, which is asked again while a server is away.

    Args:
        do: may come twice to a server that did it and could not say so.
        whose: the job or sweep, for the log.
        unless: asked after each failure; true gives up.
        most_s: seconds after which a failure gives up.

    Raises:
        Unavailable: it gave up.
    """
    deadline = time.monotonic() + most_s
    while True:
        try:
            return do()
        except Unavailable as error:
            if unless() or time.monotonic() >= deadline:
                raise
            log.warning("waits for a server that is away", whose=whose, error=error.message)
        time.sleep(AGAIN_S)
