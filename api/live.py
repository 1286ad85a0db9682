"""Waiting on Redis without a thread: events as they come, answers when they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from api.feed import Feed, Follower, Item, Parse
from service.adaptations import parse_reply, reply_key
from service.events import parse_entry, stream_key
from service.logs import log_key
from service.trips import Trips
from warploom.errors import TimedOut, Unavailable
from warploom.records import FINAL_STATES, Event

# One connection for each request that waits for its answer; beyond that, callers are told to come back.
MOST_REPLIES = 1024
# Streams that look at once for what is there; the others wait for their turn.
MOST_LOOKS = 16
# A wait is cut into slices so that a stopping server gets away from it.
SLICE_S = 1.0
HEARTBEAT_S = 15.0
LOG_LOOK_S = 2.0

Entries = list[tuple[bytes, dict[bytes, bytes]]]


class Live:
    """Asynchronous readers of all Redis servers.

    Args:
        state_url: the durable server.
        replay_urls: the memory-only ones.
        replay: knows which of them are away.
    """

    def __init__(self, state_url: str, replay_urls: Sequence[str], replay: Trips) -> None:
        self._state_url, self._replay_urls, self._replay = state_url, replay_urls, replay
        self._replies: list[Any] = []
        self._clients: list[Any] = []
        self._feeds: tuple[Feed, ...] = ()
        self._closing = False

    def open(self) -> None:
        """Make the clients and start the readers; within the running event loop, which they belong to."""
        self._closing = False
        self._replies = [_client(url, MOST_REPLIES) for url in self._replay_urls]
        self._clients = [*self._replies]
        feeds = []
        for label, url in [("state", self._state_url), *(("replay", url) for url in self._replay_urls)]:
            reader, looks = _client(url, 1), _client(url, MOST_LOOKS, wait=True)
            feeds.append(Feed(label, reader, looks))
            self._clients += [reader, looks]
        self._feeds = tuple(feeds)

    def stop(self) -> None:
        """Have all waits end soon. May be called from a signal handler."""
        self._closing = True

    async def close(self) -> None:
        """End all streams and close all connections."""
        self.stop()
        for feed in self._feeds:
            await feed.close()
        for client in self._clients:
            await client.aclose()

    async def events(
        self, owner: str, after: str | None, ended: Callable[[], Awaitable[bool]], parse: Parse = parse_entry
    ) -> AsyncIterator[Item[Any] | None]:
        """The events of a job after `after` until its last one; None when it is time for a sign of life.

        Args:
            owner: the job's id.
            after: id of the last event known.
            ended: asks whether the job is over; only then may a silent stream end.
            parse: an entry as the value of what is given.
        """
        async with self._feeds[0].follow(stream_key(owner), after or "0-0", parse) as follower:
            async for item in self._items(follower, ended, HEARTBEAT_S):
                yield item

    async def logs(
        self, owner: str, after: str, ended: Callable[[], Awaitable[bool]], parse: Parse
    ) -> AsyncIterator[Item[Any] | None]:
        """The lines of a job's log after `after`, until the job is over and nothing more comes; None as above."""
        lines = self._feeds[1 + self._replay.well()[0]]
        async with lines.follow(log_key(owner), after, parse) as follower:
            async for item in self._items(follower, ended, LOG_LOOK_S):
                yield item

    async def _items(
        self, follower: Follower, ended: Callable[[], Awaitable[bool]], look_s: float
    ) -> AsyncIterator[Item[Any] | None]:
        """What a follower meets. Every `look_s` seconds of silence it is asked whether there is an end."""
        over, looked, sign = await ended(), time.monotonic(), time.monotonic()
        while not self._closing:
            # Once all is over the stream is complete: no need to wait for more.
            items = await follower.next(0 if over else SLICE_S)
            for item in items:
                yield item
            now = time.monotonic()
            if items or follower.behind:
                looked = sign = now
                continue
            if over:
                return
            if now - looked >= look_s:
                over, looked = await ended(), now
            if now - sign >= HEARTBEAT_S:
                sign = now
                yield None

    async def reply(self, request_id: str, timeout_s: float) -> bytes:
        """The answer to an adaptation request.

        Raises:
            TimedOut: none in time.
            WarploomError: the failure that the adapter reports.
        """
        return parse_reply(await self.answered(request_id, timeout_s))

    async def answered(self, request_id: str, timeout_s: float) -> bytes:
        """The answer as it is stored, failure or not. Raises TimedOut as `reply` does."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self._closing:
            entries = await self._read(reply_key(request_id), min(left, SLICE_S))
            if entries:
                return bytes(entries[0][1][b"reply"])
        raise TimedOut(f"no answer after {timeout_s:g} s", rule=f"within {timeout_s:g} s")

    async def _read(self, key: str, wait_s: float) -> Entries:
        """What any replay server has there, as soon as one has something."""
        if not self._replies:
            raise RuntimeError("the readers are not open")
        looks = {asyncio.create_task(self._look(self._replies[i], key, wait_s)) for i in self._replay.well()}
        try:
            entries: Entries = []
            going, failed, asked = looks, 0, len(looks)
            while going and not entries:
                done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                failed += sum(look.exception() is not None for look in done)
                entries = next((look.result() for look in done if not look.exception() and look.result()), [])
            if failed == asked:
                raise next(error for look in looks if (error := look.exception()))
            return entries
        finally:
            for look in looks:
                look.cancel()

    async def _look(self, replies: Any, key: str, wait_s: float) -> Entries:
        try:
            async with asyncio.timeout(wait_s + 10):
                block = max(int(wait_s * 1000), 1)
                answer = await replies.xread({key: "0-0"}, count=1, block=block)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"the replay Redis does not answer: {type(error).__name__}") from None
        return [entry for _key, entries in answer or () for entry in entries]


def is_last(event: Event) -> bool:
    """Whether this event ends a job's history."""
    return event.kind == "state" and event.data.get("state") in FINAL_STATES


def _client(url: str, most: int, *, wait: bool = False) -> Any:
    """A client with at most so many connections; one more waits for its turn, or is refused.

    Without a socket timeout: blocking reads are bounded by their own.
    """
    options = {"socket_connect_timeout": 5, "socket_timeout": None, "protocol": 2}
    kind = redis.asyncio.BlockingConnectionPool if wait else redis.asyncio.ConnectionPool
    return redis.asyncio.Redis.from_pool(kind.from_url(url, max_connections=most, **options))
