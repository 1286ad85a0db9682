"""Amounts taken together are let in and refused as if each had come alone."""

from __future__ import annotations

import asyncio

from api.tally import Tally
from warploom.errors import RateLimited


def test_amounts_that_come_together_are_taken_at_once_and_refused_one_by_one() -> None:
    left, calls = 10, []

    def take(amount: int) -> None:
        nonlocal left
        calls.append(amount)
        if amount > left:
            raise RateLimited("too many", value=amount)
        left -= amount

    async def several(*amounts: int) -> list[object]:
        tally = Tally()
        found: list[object] = list(
            await asyncio.gather(*(tally.take("key", amount, take) for amount in amounts), return_exceptions=True)
        )
        assert not tally._amounts and not tally._next and not tally._running
        return found

    assert asyncio.run(several(1, 2, 3)) == [None] * 3
    assert (calls, left) == ([6], 4)
    one, two, three = asyncio.run(several(3, 5, 1))
    assert (one, three, left) == (None, None, 0)
    assert isinstance(two, RateLimited) and two.value == 5
