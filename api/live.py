"""Waiting on Redis without a thread: events as they come, answers when they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from service.adaptations import parse_reply, reply_key
from service.events import parse_entry, stream_key
from warploom.errors import TimedOut, Unavailable
from warploom.records import FINAL_STATES, Event

# One connection for each open stream or waiting request; beyond that, callers are told to come back.
MOST_CONNECTIONS = 1024
# A wait is cut into slices so that a stopping server gets away from it.
SLICE_S = 1.0
HEARTBEAT_S = 15.0
COUNT = 200

Entries = list[tuple[bytes, dict[bytes, bytes]]]


class Live:
    """Asynchronous readers of both Redis servers.

    Args:
        state_url: the durable server.
        replay_url: the memory-only one.
    """

    def __init__(self, state_url: str, replay_url: str) -> None:
        self._urls = (state_url, replay_url)
        self._clients: tuple[Any, Any] | None = None
        self._closing = False

    def open(self) -> None:
        """Make the clients; within the running event loop, which they belong to."""
        self._closing = False
        self._clients = (_client(self._urls[0]), _client(self._urls[1]))

    def stop(self) -> None:
        """Have all waits end soon. May be called from a signal handler."""
        self._closing = True

    async def close(self) -> None:
        """Close all connections."""
        self.stop()
        for client in self._clients or ():
            await client.aclose()

    async def events(
        self, owner: str, after: str | None, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[Event | None]:
        """The events of a job after `after` until its last one; None when it is time for a sign of life.

        Args:
            owner: the job's id.
            after: id of the last event known.
            ended: asks whether the job is over; only then may a silent stream end.
        """
        cursor, over, sign = after or "0-0", await ended(), time.monotonic()
        while not self._closing:
            # Once the job is over its history is complete: no need to wait for more.
            entries = await self._read(0, stream_key(owner), cursor, 0 if over else SLICE_S)
            for entry_id, fields in entries:
                event = parse_entry(entry_id, fields)
                cursor = event.id
                yield event
                if is_last(event):
                    return
            if entries:
                continue
            if over:
                return
            over = await ended()
            if time.monotonic() - sign >= HEARTBEAT_S:
                sign = time.monotonic()
                yield None

    async def reply(self, request_id: str, timeout_s: float) -> bytes:
        """The answer to an adaptation request.

        Raises:
            TimedOut: none in time.
            WarploomError: the failure that the adapter reports.
        """
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self._closing:
            entries = await self._read(1, reply_key(request_id), "0-0", min(left, SLICE_S))
            if entries:
                return parse_reply(entries[0][1][b"reply"])
        raise TimedOut(f"no answer after {timeout_s:g} s", rule=f"within {timeout_s:g} s")

    async def _read(self, role: int, key: str, cursor: str, wait_s: float) -> Entries:
        if self._clients is None:
            raise RuntimeError("the readers are not open")
        try:
            async with asyncio.timeout(wait_s + 10):
                block = max(int(wait_s * 1000), 1)
                answer = await self._clients[role].xread({key: cursor}, count=COUNT, block=block)
        except (RedisError, OSError, TimeoutError) as error:
            name = ("state", "replay")[role]
            raise Unavailable(f"the {name} Redis does not answer: {type(error).__name__}") from None
        return _entries(answer)


def is_last(event: Event) -> bool:
    """Whether this event ends a job's history."""
    return event.kind == "state" and event.data.get("state") in FINAL_STATES


def _client(url: str) -> Any:
    # Without a socket timeout: blocking reads are bounded by `asyncio.timeout` above.
    return redis.asyncio.Redis.from_url(
        url, max_connections=MOST_CONNECTIONS, socket_connect_timeout=5, socket_timeout=None, protocol=2
    )


def _entries(answer: Any) -> Entries:
    return [entry for _key, entries in answer or () for entry in entries]
