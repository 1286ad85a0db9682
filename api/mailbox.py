"""Adaptation requests of one API process: sent together, and answered through one stream.

A connection and a thread for each waiting request would cost more than the adaptation of a small task. So one reader
gets all answers and wakes who waits.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

from redis.exceptions import RedisError

from service import keys
from service.adaptations import AdaptationQueue, AdaptationRequest, parse_reply
from service.trips import Trips, connection
from warploom.errors import TimedOut, Unavailable

# One wait for answers; a server that does not say by PATIENCE_S that there are none is away.
SLICE_MS = 1000
PATIENCE_S = 10.0
COUNT = 500
# Answers that were read are taken from the stream when so many have come, or when there is time.
TRIM_EVERY = 64
RETRY_S = 0.5


class Mailbox:
    """Sends requests and hands out their answers.

    Args:
        replay_url: the memory-only server.
        address: of the stream that answers come through; default: a new one.
        alone: whether there is no other server. If there is one, whoever waits is told at once when this one is lost.
    """

    def __init__(self, replay_url: str, address: str | None = None, *, alone: bool = True) -> None:
        self._url, self._alone = replay_url, alone
        self.address = address or keys.inbox(secrets.token_hex(8))
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        # Apart from the limiter's: large payloads would hold small commands up.
        self._trips = Trips("replay", replay_url)

    def open(self) -> None:
        """Start to send and to read; within the running event loop."""
        self._connection = connection(self._url)
        self._trips.open()
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Stop; whoever waits is told that the service is going away."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._trips.close()
        self._fail("this server is stopping; try again")
        await self._connection.disconnect()

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
        cursor, read = b"0-0", []
        while True:
            try:
                entries = await self._entries(cursor)
                for entry_id, fields in entries:
                    cursor = entry_id
                    read.append(entry_id)
                    self._hand_out(dict(zip(fields[::2], fields[1::2], strict=True)))
                if len(read) >= TRIM_EVERY or (read and not entries):
                    await self._trips.run("XDEL", self.address, *read)
                    read.clear()
            except (RedisError, OSError, Unavailable):
                # Answers wait in the stream; whoever runs out of time says so.
                if not self._alone:
                    self._fail("the replay Redis does not answer")
                await self._connection.disconnect(nowait=True)
                await asyncio.sleep(RETRY_S)

    async def _entries(self, cursor: bytes) -> list[tuple[bytes, list[bytes]]]:
        """What came after `cursor`; waits a while for something."""
        command = ("XREAD", "COUNT", COUNT, "BLOCK", SLICE_MS, "STREAMS", self.address, cursor)
        async with asyncio.timeout(PATIENCE_S):
            await self._connection.send_command(*command, check_health=False)
            found = await self._connection.read_response()
        return [entry for _, entries in found or () for entry in entries]

    def _hand_out(self, fields: Mapping[bytes, bytes]) -> None:
        waiting = self._waiting.get(fields[b"id"].decode())
        if waiting is not None and not waiting.done():
            waiting.set_result(fields[b"reply"])

    def _fail(self, why: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable(why))
