"""Amounts that are taken from one limit at the same time, taken together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from starlette.concurrency import run_in_threadpool

from warploom.errors import RateLimited, TooLarge

Take = Callable[[int], None]
Refusal = RateLimited | TooLarge


class Tally:
    """Takes the sum for all who come while a call runs; where that does not fit, each amount by itself, in order.

    So each is let in or refused as if it had come alone.
    """

    def __init__(self) -> None:
        self._amounts: dict[Hashable, list[int]] = {}
        self._next: dict[Hashable, asyncio.Task[list[Refusal | None]]] = {}
        self._running: dict[Hashable, asyncio.Task[list[Refusal | None]]] = {}

    async def take(self, key: Hashable, amount: int, take: Take) -> None:
        """Take an amount from the limit that `key` names, with `take`, which runs on a thread.

        Raises:
            RateLimited, TooLarge: as `take` does for this amount.
        """
        amounts = self._amounts.setdefault(key, [])
        amounts.append(amount)
        place = len(amounts) - 1
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key, take))
        refusal = (await asyncio.shield(task))[place]
        if refusal is not None:
            raise refusal

    async def _run(self, key: Hashable, take: Take) -> list[Refusal | None]:
        before = self._running.get(key)
        if before is not None:
            await asyncio.wait([before])
        task = self._running[key] = self._next.pop(key)
        try:
            return await run_in_threadpool(_take_all, self._amounts.pop(key), take)
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _take_all(amounts: list[int], take: Take) -> list[Refusal | None]:
    if len(amounts) > 1:
        try:
            take(sum(amounts))
        except (RateLimited, TooLarge):
            pass  # perhaps some of them fit
        else:
            return [None] * len(amounts)
    return [_refusal(amount, take) for amount in amounts]


def _refusal(amount: int, take: Take) -> Refusal | None:
    try:
        take(amount)
    except (RateLimited, TooLarge) as error:
        return error
    return None
