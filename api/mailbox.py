"""Adaptation requests of one API process: sent together, and answered through one stream.

A connection and a thread for each waiting request would cost more than the adaptation of a small task. So one reader
gets all answers and wakes who waits.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from service import keys
from service.adaptations import AdaptationQueue, AdaptationRequest, parse_reply
from service.trips import Trips
from warploom.errors import TimedOut, Unavailable

# A wait is cut into slices so that a stopping server gets away from it.
SLICE_MS = 1000
COUNT = 500
# Answers that were read are trimmed from the stream when so many have come.
TRIM_EVERY = 64
RETRY_S = 0.5


class Mailbox:
    """Sends requests and hands out their answers.

    Args:
        replay_url: the memory-only server.
    """

    def __init__(self, replay_url: str) -> None:
        self._url = replay_url
        self.address = keys.inbox(secrets.token_hex(8))
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        # Apart from the limiter's: large payloads would hold small commands up.
        self._trips = Trips("replay", replay_url)

    def open(self) -> None:
        """Start to send and to read; within the running event loop."""
        # Without a socket timeout: a blocking read is bounded by its own.
        self._redis: Any = redis.asyncio.Redis.from_url(
            self._url, socket_connect_timeout=5, socket_timeout=None, protocol=2
        )
        self._trips.open()
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Stop; whoever waits is told that the service is going away."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._trips.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("this server is stopping; try again"))
        await self._redis.aclose()

    async def submit(self, queue: AdaptationQueue, request: AdaptationRequest) -> bool:
        """Hand a request to the adapters; False when it was there already. Raises as `AdaptationQueue.submit` does."""
        return await queue.submitted(self._trips, request)

    async def ask(self, queue: AdaptationQueue, request: AdaptationRequest, timeout_s: float) -> bytes | None:
        """The answer to a new request whose `inbox` is `address`; None when it was submitted before by somebody.

        Raises:
            TimedOut: none in time.
            WarploomError: it cannot be submitted, or the failure that the adapter reports.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            async with asyncio.timeout(timeout_s):
                if not await self.submit(queue, request):
                    return None
                return parse_reply(await future)
        except TimeoutError:
            raise TimedOut(f"no answer after {timeout_s:g} s", rule=f"within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(request.id, None)

    async def _read(self) -> None:
        cursor, untrimmed = b"0-0", 0
        while True:
            try:
                answer = await self._redis.xread({self.address: cursor}, count=COUNT, block=SLICE_MS)
                entries = [entry for _, found in answer or () for entry in found]
                for entry_id, fields in entries:
                    cursor = entry_id
                    waiting = self._waiting.get(fields[b"id"].decode())
                    if waiting is not None and not waiting.done():
                        waiting.set_result(fields[b"reply"])
                untrimmed += len(entries)
                if untrimmed >= TRIM_EVERY or (untrimmed and not entries):
                    await self._redis.xtrim(self.address, minid=cursor, approximate=False)
                    untrimmed = 0
            except (RedisError, OSError):
                # Answers wait in the stream; whoever runs out of time says so.
                await asyncio.sleep(RETRY_S)
