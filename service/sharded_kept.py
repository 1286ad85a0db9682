"""Adapted parameters on several replay servers: stored on the first that answers, found wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from service import keys
from service.connection import Connections
from service.kept import KeptStore
from service.trips import Trips
from warploom.errors import NotFound, Unavailable

PartT = TypeVar("PartT")
AnswerT = TypeVar("AnswerT")


class ShardedKept(KeptStore):
    """`KeptStore` over several servers, of which some may be away.

    Args:
        connections: all servers.
        parts: the store on each replay server.
    """

    def __init__(self, connections: Connections, parts: Sequence[KeptStore]) -> None:
        super().__init__(connections.replay, ttl_s=0, budget_bytes=0)
        self._parts = parts

    def keep(self, adaptation_id: str, info: dict[str, Any], blob: bytes, *, content: str = "") -> bool:
        """See `KeptStore.keep`."""
        return first_of(self._parts, lambda part: part.keep(adaptation_id, info, blob, content=content))

    def get(self, adaptation_id: str) -> tuple[dict[str, Any], bytes]:
        """See `KeptStore.get`."""
        return found_in(self._parts, lambda part: part.get(adaptation_id))

    async def info(self, replay: Trips, adaptation_id: str) -> dict[str, Any]:
        """See `KeptStore.info`."""
        return self._read(adaptation_id, await replay.find("HGET", keys.adapted(adaptation_id), "info"))

    def visible(self, info: dict[str, Any]) -> dict[str, Any] | None:
        """See `KeptStore.visible`."""
        return self._parts[0].visible(info)

    def missing(self, adaptation_id: str) -> NotFound:
        """See `KeptStore.missing`."""
        return self._parts[0].missing(adaptation_id)

    def get_many(self, adaptation_ids: Sequence[str]) -> list[tuple[dict[str, Any], bytes] | None]:
        """See `KeptStore.get_many`."""
        return self._any(lambda part: part.get_many(adaptation_ids))

    def forget(self, adaptation_id: str) -> None:
        """See `KeptStore.forget`."""
        every_of(self._parts, lambda part: part.forget(adaptation_id))

    def books(self) -> dict[str, int]:
        """See `KeptStore.books`."""
        found = every_of(self._parts, lambda part: part.books())
        return {name: sum(books[name] for books in found) for name in ("bytes", "dropped")}

    def _any(self, call: Callable[[KeptStore], list[AnswerT | None]]) -> list[AnswerT | None]:
        """At each place what any server has there."""
        rows = zip(*every_of(self._parts, call), strict=True)
        return [next((one for one in row if one is not None), None) for row in rows]


def first_of(parts: Sequence[PartT], call: Callable[[PartT], AnswerT]) -> AnswerT:
    """What the first says that answers. Raises Unavailable when none does, or one answers and refuses (with a rule)."""
    last: Unavailable | None = None
    for part in parts:
        try:
            return call(part)
        except Unavailable as error:
            if error.rule is not None:
                raise
            last = error
    assert last is not None
    raise last


def every_of(parts: Sequence[PartT], call: Callable[[PartT], AnswerT]) -> list[AnswerT]:
    """What all say that answer. Raises Unavailable when none does."""
    found, last = [], None
    for part in parts:
        try:
            found.append(call(part))
        except Unavailable as error:
            last = error
    if last is not None and not found:
        raise last
    return found


def found_in(parts: Sequence[PartT], call: Callable[[PartT], AnswerT]) -> AnswerT:
    """What the first says that knows about it. Raises NotFound when none of those that answer does."""
    missing: NotFound | None = None
    last: Unavailable | None = None
    for part in parts:
        try:
            return call(part)
        except NotFound as error:
            missing = error
        except Unavailable as error:
            last = error
    if missing is not None:
        raise missing
    assert last is not None
    raise last
