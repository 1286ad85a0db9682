"""Adaptation requests on several replay servers.

A request and all that comes of it lie on one server: the first that answered when it was made. Adapters wait there, and
look at the others every now and then; kept parameters are found wherever they are. What a server held is lost with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from service.adaptations import AdaptationQueue, AdaptationRequest, Outcome
from service.connection import Connections
from service.scripts import Arg
from service.sharded_kept import ShardedKept, every_of, first_of, found_in
from service.tenancy import Caller
from warploom.errors import Unavailable

LOOK_S = 0.2  # between two looks at the servers where nobody waits
SLICE_MS = 100
AnswerT = TypeVar("AnswerT")


def queue_on(
    connections: Connections,
    *,
    ttl_s: float = 3600,
    budget_bytes: int = 2**28,
    most_waiting: int = 10_000,
    caller: Caller | None = None,
) -> AdaptationQueue:
    """The queue on the replay server, or on all of them; see `AdaptationQueue` for the arguments."""
    count = len(connections.shards)
    parts = [
        AdaptationQueue(
            connections,
            ttl_s=ttl_s,
            budget_bytes=max(1, budget_bytes // count),
            most_waiting=most_waiting,
            caller=caller,
            server=server,
        )
        for server in connections.shards
    ]
    return parts[0] if count == 1 else ShardedQueue(connections, parts)


class ShardedQueue(AdaptationQueue):
    """`AdaptationQueue` over several servers, of which some may be away.

    Args:
        connections: all servers.
        parts: the queue on each replay server.
    """

    def __init__(self, connections: Connections, parts: Sequence[AdaptationQueue]) -> None:
        super().__init__(connections)
        self.parts = list(parts)
        self.kept = ShardedKept(connections, [part.kept for part in parts])
        self._glanced = 0.0

    def id_of(self, key: str) -> str:
        """See `AdaptationQueue.id_of`."""
        return self.parts[0].id_of(key)

    def submit(self, request: AdaptationRequest) -> bool:
        """See `AdaptationQueue.submit`."""
        return self._first(lambda part: part.submit(request))

    def _submission(self, request: AdaptationRequest) -> tuple[list[str], list[Arg]]:
        return self.parts[0]._submission(request)  # the same for each server

    def read(self, consumer: str, count: int, block_ms: int, *, idle_ms: int | None = None) -> list[AdaptationRequest]:
        """See `AdaptationQueue.read`; waits at the first server that answers."""
        found: list[AdaptationRequest] = []
        if time.monotonic() - self._glanced >= LOOK_S:
            self._glanced = time.monotonic()
            for shard, part in list(self._well())[1:]:
                with suppress(Unavailable):
                    more = part.read(consumer, count - len(found), 0, idle_ms=idle_ms) if len(found) < count else []
                    found += [replace(request, shard=shard) for request in more]
        if len(found) == count:
            return found
        wait_ms = 0 if found else block_ms
        return found + self._first(lambda part: self._read(part, consumer, count - len(found), wait_ms, idle_ms))

    def _read(
        self, part: AdaptationQueue, consumer: str, count: int, block_ms: int, idle_ms: int | None
    ) -> list[AdaptationRequest]:
        shard = self.parts.index(part)
        return [replace(request, shard=shard) for request in part.read(consumer, count, block_ms, idle_ms=idle_ms)]

    def renew(self, consumer: str) -> int:
        """See `AdaptationQueue.renew`."""
        return sum(self._every(lambda part: part.renew(consumer)))

    def release(self, consumer: str) -> int:
        """See `AdaptationQueue.release`."""
        return sum(self._every(lambda part: part.release(consumer)))

    def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See `AdaptationQueue.finish`; False too where the request is lost with its server."""
        said = [False] * len(outcomes)
        for shard, part in enumerate(self.parts):
            own = [i for i, outcome in enumerate(outcomes) if outcome.request.shard == shard]
            with suppress(Unavailable):
                for i, new in zip(own, part.finish([outcomes[i] for i in own]), strict=True):
                    said[i] = new
        return said

    def look(self, request_id: str, block_ms: int) -> bytes | None:
        """See `AdaptationQueue.look`."""
        there = [raw for raw in self._every(lambda part: part.look(request_id, 0)) if raw is not None]
        return there[0] if there else self._first(lambda part: part.look(request_id, min(block_ms, SLICE_MS)))

    def pending(self) -> int:
        """See `AdaptationQueue.pending`."""
        return sum(self._every(lambda part: part.pending()))

    def reply(self, request_id: str) -> bytes | None:
        """See `AdaptationQueue.reply`."""
        return found_in(self.parts, lambda part: part.reply(request_id))

    def _well(self) -> Iterator[tuple[int, AdaptationQueue]]:
        """Servers that answered last, first; then those that did not, which are asked again in time."""
        return iter(sorted(enumerate(self.parts), key=lambda one: one[1].server.away))

    def _first(self, call: Callable[[AdaptationQueue], AnswerT]) -> AnswerT:
        return first_of(self.parts, call)

    def _every(self, call: Callable[[AdaptationQueue], AnswerT]) -> list[AnswerT]:
        return every_of(self.parts, call)
