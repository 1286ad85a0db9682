"""One reader for all streams: nothing missed, nothing twice, whoever is slow or comes late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from api import feed as feeds
from api.feed import Feed, Fields
from service.connection import Connections
from service.settings import Settings
from warploom.errors import Unavailable


def value(_: bytes, fields: Fields) -> int:
    return int(fields[b"n"])


def run(settings: Settings, body: Callable[[Feed], Awaitable[None]]) -> None:
    async def main() -> None:
        clients = [redis.asyncio.Redis.from_url(settings.state_url, protocol=2) for _ in range(2)]
        feed = Feed("state", *clients)
        try:
            async with asyncio.timeout(60):
                await body(feed)
        finally:
            await feed.close()
            for client in clients:
                await client.aclose()

    asyncio.run(main())


def add(connections: Connections, key: str, *numbers: int) -> None:
    for n in numbers:
        connections.state.execute_command("XADD", key, "*", "n", n)
    connections.state.expire(key, 60)


async def collect(feed: Feed, key: str, count: int, after: str = "0-0") -> list[int]:
    found: list[int] = []
    async with feed.follow(key, after, value) as follower:
        while len(found) < count:
            found += [item.value for item in await follower.next(1)]
    return found


def test_many_followers_of_many_streams_miss_nothing(connections: Connections, redis_settings: Settings) -> None:
    count = 450

    async def body(feed: Feed) -> None:
        async def write() -> None:
            for n in range(10, count):
                await asyncio.to_thread(add, connections, f"s{n % 3}", n)

        late = [asyncio.create_task(collect(feed, f"s{i % 3}", count // 3)) for i in range(12)]
        writer = asyncio.create_task(write())
        await asyncio.sleep(0)
        for i in range(30):
            await asyncio.to_thread(lambda: None)
            late.append(asyncio.create_task(collect(feed, f"s{i % 3}", count // 3)))
        await writer
        for i, found in enumerate(await asyncio.gather(*late)):
            which = i % 3 if i < 12 else (i - 12) % 3
            assert found == list(range(which, count, 3))
        assert not feed._followers and not feed._cursors

    for n in range(10):
        add(connections, f"s{n % 3}", n)
    run(redis_settings, body)


def test_a_slow_follower_reads_by_itself_and_misses_nothing(
    connections: Connections, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_WAITING", 5)
    monkeypatch.setattr(feeds, "COUNT", 4)
    add(connections, "s", 0)

    async def body(feed: Feed) -> None:
        async with feed.follow("s", "0-0", value) as slow, feed.follow("s", "0-0", value) as quick:
            for follower in (slow, quick):
                while follower.behind:
                    await follower.next(0)
            await asyncio.to_thread(add, connections, "s", *range(1, 40))
            seen: list[int] = []
            while len(seen) < 39:
                seen += [item.value for item in await quick.next(5)]
            assert slow.behind and seen == list(range(1, 40))
            late: list[int] = []
            while len(late) < 39:
                late += [item.value for item in await slow.next(5)]
            assert late == list(range(1, 40))

    run(redis_settings, body)


def test_followers_hear_that_redis_is_away(redis_settings: Settings) -> None:
    async def body(feed: Feed) -> None:
        async with feed.follow("s", "0-0", value) as follower:
            while follower.behind:
                await follower.next(0)
            waiting = asyncio.create_task(follower.next(30))
            await asyncio.sleep(0)
            feed._reader.xread = _broken
            with pytest.raises(Unavailable, match="state"):
                await waiting

    async def _broken(*_: object, **__: object) -> None:
        raise OSError("gone")

    run(redis_settings, body)
