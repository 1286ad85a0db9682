"""Short commands on an event loop to the first of several replay servers that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from service.scripts import Arg, Script
from service.trips import Trips
from warploom.errors import Unavailable

# Between two questions whether a server is back.
LOOK_S = 0.5
AnswerT = TypeVar("AnswerT")


def trips_on(label: str, urls: Sequence[str]) -> Trips:
    """One connection to the server, or one to each of them."""
    return Trips(label, urls[0]) if len(urls) == 1 else ShardedTrips(label, urls)


class ShardedTrips(Trips):
    """`Trips` over several servers. One that does not answer is asked again in the background, so that nobody waits.

    Args:
        label: of the servers, for errors.
        urls: the servers'.
    """

    def __init__(self, label: str, urls: Sequence[str]) -> None:
        super().__init__(label, urls[0])
        self.parts = [Trips(label, url) for url in urls]
        self._watches: dict[int, asyncio.Task[None]] = {}

    def open(self) -> None:
        """See `Trips.open`."""
        for part in self.parts:
            part.open()

    async def close(self) -> None:
        """See `Trips.close`."""
        watches = list(self._watches.values())
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await asyncio.gather(*(part.close() for part in self.parts))

    async def run(self, *command: Any) -> Any:
        """See `Trips.run`."""
        return await self.first(lambda i: self.parts[i].run(*command))

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """See `Trips.script`."""
        return await self.first(lambda i: self.parts[i].script(script, keys, args))

    async def find(self, *command: Any) -> Any:
        """See `Trips.find`."""
        found, heard = None, False
        # Those that seem away too, at last: one may have just come back.
        for i in sorted(range(len(self.parts)), key=lambda i: i in self._watches):
            try:
                found, heard = await self.parts[i].run(*command), True
            except Unavailable:
                self._leave(i)
            if found is not None:
                break
        if not heard:
            raise Unavailable("no replay server answers")
        return found

    def well(self) -> list[int]:
        """See `Trips.well`."""
        every = range(len(self.parts))
        return [i for i in every if i not in self._watches] or list(every)

    async def first(self, call: Callable[[int], Awaitable[AnswerT]]) -> AnswerT:
        """What comes of the first server, by its number, that answers.

        Raises:
            Unavailable: none does, or one answers and refuses (with a rule).
        """
        last: Unavailable | None = None
        for i in self.well():
            try:
                return await call(i)
            except Unavailable as error:
                if error.rule is not None:
                    raise
                last = error
                self._leave(i)
        assert last is not None
        raise last

    def _leave(self, i: int) -> None:
        if i not in self._watches:
            self._watches[i] = asyncio.create_task(self._watch(i))

    async def _watch(self, i: int) -> None:
        """Until the server answers."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.parts[i].run("PING")
            except Unavailable:
                continue
            del self._watches[i]
            return
