"""All open streams of this process read Redis by one connection for each server.

A follower first reads what is there by itself, then takes what the one reader hands out. Nothing is missed between the
two: the follower is registered before it looks, and looks once more after the reader knows its stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from redis.exceptions import RedisError

from warploom.errors import Unavailable

ItemT = TypeVar("ItemT")
Fields = Mapping[bytes, bytes]
COUNT = 200
# A stream that is new to the reader waits for the end of the slice that is on.
SLICE_MS = 200
BACK_OFF_S = 0.5
MOST_WAITING = 1000


class Item(NamedTuple, Generic[ItemT]):
    """One entry of a stream, parsed once for all that follow it."""

    id: str
    value: ItemT


Parse = Callable[[bytes, Fields], Any]


class Follower:
    """One open stream's place; made by `Feed.follow`.

    Args:
        feed: who reads.
        key: the stream.
        cursor: id of the last entry that is known.
        parse: an entry as what `next` gives.

    Attributes:
        behind: whether it still reads what was there before.
    """

    def __init__(self, feed: Feed, key: str, cursor: str, parse: Parse) -> None:
        self.feed, self.key, self.cursor, self.parse = feed, key, cursor, parse
        self._items: deque[Item[Any]] = deque()
        self._news = asyncio.Event()
        self.behind, self._known, self._failed = True, False, False

    async def next(self, timeout_s: float) -> list[Item[Any]]:
        """The next entries in order; none when nothing came in time.

        Raises:
            Unavailable: Redis does not answer.
        """
        if self.behind:
            found = await self._catch_up()
            if found or self.behind:
                return found
        if not self._items and not self._failed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        if self._failed:
            raise Unavailable(f"the {self.feed.label} Redis does not answer")
        return self._drain()

    def give(self, items: list[Item[Any]]) -> None:
        """Called by the reader; one that takes too slowly reads by itself again."""
        self._items.extend(items)
        if len(self._items) > MOST_WAITING:
            self._items.clear()
            self.behind = True
        self._news.set()

    def fail(self) -> None:
        """Called by the reader when Redis is away, and by the feed when it closes."""
        self._failed = True
        self._news.set()

    def _drain(self) -> list[Item[Any]]:
        found = [item for item in self._items if order(item.id) > order(self.cursor)]
        self._items.clear()
        if found:
            self.cursor = found[-1].id
        return found

    async def _catch_up(self) -> list[Item[Any]]:
        """What is there; once that is all, the reader takes over, after one more look."""
        found = await self.feed.range(self.key, self.cursor, self.parse)
        if found:
            self.cursor = found[-1].id
        if len(found) < COUNT:
            if self._known:
                self.behind = False
            self.feed.watch(self.key, self.cursor)
            self._known = True
        return found


class Feed:
    """The one reader of a server.

    Args:
        label: of the server, for errors.
        reader: a client for the blocking read alone.
        looks: a client for short reads.
    """

    def __init__(self, label: str, reader: Any, looks: Any) -> None:
        self.label, self._reader, self._looks = label, reader, looks
        self._followers: dict[str, set[Follower]] = {}
        self._cursors: dict[str, str] = {}
        self._work = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @contextlib.asynccontextmanager
    async def follow(self, key: str, after: str, parse: Parse) -> AsyncIterator[Follower]:
        """A follower of the stream `key` from the entry after `after` on."""
        follower = Follower(self, key, after, parse)
        self._followers.setdefault(key, set()).add(follower)
        try:
            yield follower
        finally:
            self._followers[key].discard(follower)
            if not self._followers[key]:
                del self._followers[key]
                self._cursors.pop(key, None)

    def watch(self, key: str, cursor: str) -> None:
        """Have the reader look for entries after `cursor`, unless it watches the stream already."""
        self._cursors.setdefault(key, cursor)
        self._work.set()

    async def range(self, key: str, cursor: str, parse: Parse) -> list[Item[Any]]:
        """Entries that are there now. Raises Unavailable."""
        try:
            entries = await self._looks.xrange(key, f"({cursor}", "+", count=COUNT)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"the {self.label} Redis does not answer: {type(error).__name__}") from None
        return [_item(parse, *entry) for entry in entries]

    async def close(self) -> None:
        """End all streams."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._fail()

    async def _run(self) -> None:
        while True:
            if not self._cursors:
                self._work.clear()
                await self._work.wait()
            try:
                answer = await self._reader.xread(dict(self._cursors), count=COUNT, block=SLICE_MS)
            except (RedisError, OSError, TimeoutError):
                self._fail()
                await asyncio.sleep(BACK_OFF_S)
                continue
            for key, entries in answer or ():
                self._hand_out(key.decode(), entries)

    def _hand_out(self, key: str, entries: list[tuple[bytes, Fields]]) -> None:
        followers = self._followers.get(key)
        if not followers:
            return
        self._cursors[key] = entries[-1][0].decode()
        parsed: dict[Parse, list[Item[Any]]] = {}
        for follower in followers:
            if follower.parse not in parsed:
                parsed[follower.parse] = [_item(follower.parse, *entry) for entry in entries]
            follower.give(parsed[follower.parse])

    def _fail(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.fail()


def order(entry_id: str) -> tuple[int, int]:
    """An entry's id as something to compare.

    Example:
        >>> order("10-2") > order("9-30")
        True
    """
    time, _, number = entry_id.partition("-")
    return int(time), int(number or 0)


def _item(parse: Parse, entry_id: bytes, fields: Fields) -> Item[Any]:
    return Item(entry_id.decode(), parse(entry_id, fields))
