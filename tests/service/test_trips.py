"""Commands over one connection: in order, together, through a server's absence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from redis.exceptions import ResponseError

from service.connection import Connections
from service.scripts import Script
from service.settings import Settings
from service.trips import READ_BYTES, Trips
from tests.support.proxy import Proxy
from warploom.errors import Unavailable

T = TypeVar("T")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Trips]:
    trips = Trips("replay", url)
    trips.open()
    try:
        yield trips
    finally:
        await trips.close()


def over(url: str, work: Callable[[Trips], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(url) as trips:
            return await work(trips)

    return asyncio.run(run())


def test_replies_of_all_kinds_and_sizes_find_their_commands(redis_settings: Settings, connections: Connections) -> None:
    sizes = [0, 1, READ_BYTES - 3, READ_BYTES, 3 * READ_BYTES + 1]
    values = [(b"a\r\n$" * size)[:size] for size in sizes]

    async def work(trips: Trips) -> list[Any]:
        commands: list[tuple[Any, ...]] = [("ECHO", value) for value in values]
        commands += [("EVAL", "return {1, {'x', false, {}}, 'y'}", 0), ("NONSENSE",), ("GET", "absent"), ("INCR", "n")]
        await trips.run("MSET", *(part for i, value in enumerate(values) for part in (f"k{i}", value)))
        told = await trips.run("MGET", *(f"k{i}" for i in range(len(values))))
        return [told, *await asyncio.gather(*(trips.run(*c) for c in commands), return_exceptions=True)]

    found = over(redis_settings.replay_url, work)
    connections.replay.flushall()
    assert found[0] == values and found[1:6] == values
    assert found[6] == [1, [b"x", None, []], b"y"]
    assert isinstance(found[7], ResponseError) and found[8:] == [None, 1]


def test_commands_that_come_together_travel_together(redis_settings: Settings, connections: Connections) -> None:
    def reads() -> int:
        return int(connections.replay.info("stats")["total_reads_processed"])

    async def work(trips: Trips) -> None:
        await asyncio.gather(*(trips.run("PING") for _ in range(100)))

    before = reads()
    over(redis_settings.replay_url, work)
    assert reads() - before < 20


def test_a_script_is_taught_to_a_server_that_does_not_know_it(
    redis_settings: Settings, connections: Connections
) -> None:
    connections.replay.script_flush()
    script, now = Script("beat"), int(time.time() * 1000)

    async def work(trips: Trips) -> list[Any]:
        return [await trips.script(script, ["wl:fleet"], [now, f"part {i}", 1000, 60]) for i in range(2)]

    assert over(redis_settings.replay_url, work) == [1, 1]
    assert connections.replay.zcard("wl:fleet") == 2


def test_a_connection_that_was_lost_is_made_anew(redis_settings: Settings) -> None:
    with Proxy(redis_settings.replay_url) as proxy:

        async def work(trips: Trips) -> list[Any]:
            found = [await trips.run("PING")]
            await asyncio.to_thread(proxy.cut)
            found.append(await trips.run("PING"))
            await asyncio.to_thread(proxy.away, True)
            with pytest.raises(Unavailable, match=r"the replay server at redis://.* does not answer"):
                await trips.run("PING")
            await asyncio.to_thread(proxy.away, False)
            return [*found, await trips.run("PING")]

        assert over(proxy.url, work) == [b"PONG"] * 3


def test_who_waits_when_it_stops_is_told(redis_settings: Settings, connections: Connections) -> None:
    async def run() -> list[Any]:
        async with opened(redis_settings.replay_url) as trips:
            waiting = [asyncio.create_task(trips.run("BLPOP", "nothing", 5)) for _ in range(2)]
            while not connections.replay.info("clients")["blocked_clients"]:
                await asyncio.sleep(0)
            waiting.append(asyncio.create_task(trips.run("PING")))
            await asyncio.sleep(0)
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [str(error) for error in asyncio.run(run())] == ["this server is stopping; try again"] * 3
