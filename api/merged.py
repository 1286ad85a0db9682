"""Equal questions that come at the same time, asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")


class Merged:
    """Runs blocking functions in threads, one call for all who ask the same.

    Nobody gets an answer that was begun before they asked: who comes while a call runs waits for the next one.
    """

    def __init__(self) -> None:
        self._next: dict[Hashable, asyncio.Task[Any]] = {}
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def ask(self, key: Hashable, function: Callable[[], T]) -> T:
        """What `function` gives; all askers with this key must mean the same function."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key, function))
        found: T = await asyncio.shield(task)
        return found

    async def _run(self, key: Hashable, function: Callable[[], T]) -> T:
        before = self._running.get(key)
        if before is not None:
            await asyncio.wait([before])
        task = self._running[key] = self._next.pop(key)
        try:
            return await run_in_threadpool(function)
        finally:
            if self._running.get(key) is task:
                del self._running[key]
