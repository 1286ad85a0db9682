"""A mailbox on each replay server; a request goes to the first that answers, and on when that one is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.mailbox import Mailbox
from service.adaptations import AdaptationQueue, AdaptationRequest
from service.sharded_trips import ShardedTrips
from service.trips import Trips


def mailbox_on(replay_urls: Sequence[str], replay: Trips) -> Mailbox:
    """The mailbox of this process on the replay server, or on all of them.

    Args:
        replay_urls: the servers.
        replay: knows which of them are away.
    """
    return Mailboxes(replay_urls, replay) if isinstance(replay, ShardedTrips) else Mailbox(replay_urls[0])


class Mailboxes(Mailbox):
    """`Mailbox` over several servers; see `mailbox_on` for the arguments."""

    def __init__(self, replay_urls: Sequence[str], replay: ShardedTrips) -> None:
        super().__init__(replay_urls[0])
        self._servers = replay
        self._boxes = [Mailbox(url, self.address, alone=False) for url in replay_urls]

    def open(self) -> None:
        """See `Mailbox.open`."""
        for box in self._boxes:
            box.open()

    async def close(self) -> None:
        """See `Mailbox.close`."""
        await asyncio.gather(*(box.close() for box in self._boxes))

    async def submit(self, queue: AdaptationQueue, request: AdaptationRequest) -> bool:
        """See `Mailbox.submit`."""
        return await self._servers.first(lambda i: self._boxes[i].submit(queue, request))

    async def ask(self, queue: AdaptationQueue, request: AdaptationRequest, timeout_s: float) -> bytes | None:
        """See `Mailbox.ask`; a request whose server is lost is sent to another."""
        return await self._servers.first(lambda i: self._boxes[i].ask(queue, request, timeout_s))
