"""Equal questions at the same time, asked once; nobody gets an answer from before their question."""

from __future__ import annotations

import asyncio
import threading

import pytest

from api.merged import Merged


def test_who_comes_while_a_call_runs_shares_the_next_one() -> None:
    merged, go, calls = Merged(), threading.Event(), []

    def look() -> int:
        calls.append(1)
        number = len(calls)
        go.wait(10)
        return number

    async def several() -> list[int]:
        first = asyncio.create_task(merged.ask("a", look))
        while not calls:
            await asyncio.sleep(0)
        others = [asyncio.create_task(merged.ask("a", look)) for _ in range(5)]
        await asyncio.sleep(0)
        go.set()
        return [await task for task in (first, *others)]

    assert asyncio.run(several()) == [1, 2, 2, 2, 2, 2]


def test_questions_with_other_keys_are_other_questions_and_failures_are_shared() -> None:
    merged = Merged()

    def fail() -> int:
        raise ValueError("no")

    async def several() -> list[object]:
        return await asyncio.gather(
            merged.ask(1, lambda: 1), merged.ask(2, lambda: 2), merged.ask(3, fail), merged.ask(3, fail),
            return_exceptions=True,
        )  # fmt: skip

    one, two, *failed = asyncio.run(several())
    assert (one, two) == (1, 2)
    assert [str(error) for error in failed] == ["no", "no"]
    with pytest.raises(ValueError, match="no"):
        asyncio.run(merged.ask(3, fail))
