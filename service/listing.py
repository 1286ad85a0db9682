"""Pages of long lists: a cursor, an order, filters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from service.connection import RoleClient
from warploom.errors import InvalidInput

PAGE_MOST = 1000
Order = Literal["asc", "desc"]
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which part of a list is asked for.

    Args:
        limit: most entries, 1 to 1000.
        after: the last entry of the page before; None for the first page.
        order: by the entries' keys.
        state: only those in this state.
        created_after: only those made at this time or later, in seconds since the epoch.
        created_before: only those made before this time.
        metadata: only those that have all of these pairs.

    Raises:
        InvalidInput: limit out of range, or an unknown order.
    """

    limit: int = 20
    after: str | None = None
    order: Order = "desc"
    state: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_MOST:
            raise InvalidInput("limit is out of range", field="limit", rule=f"1 to {PAGE_MOST}", value=self.limit)
        if self.order not in ("asc", "desc"):
            raise InvalidInput(f"unknown order {self.order!r}", field="order", rule="asc or desc", value=self.order)

    def fits(self, *, created_at: float, metadata: Mapping[str, str], state: str | None = None) -> bool:
        """Whether an entry passes all filters.

        Example:
            >>> Wanted(created_after=5, metadata={"a": "b"}).fits(created_at=5, metadata={"a": "b", "c": "d"})
            True
        """
        if self.state not in (None, state):
            return False
        if self.created_after is not None and created_at < self.created_after:
            return False
        if self.created_before is not None and created_at >= self.created_before:
            return False
        return all(metadata.get(name) == value for name, value in self.metadata.items())


def page(
    client: RoleClient,
    index: str,
    wanted: Wanted,
    read: Callable[[Sequence[str]], list[RowT]],
    fits: Callable[[RowT], bool],
) -> tuple[list[RowT], bool]:
    """Up to `wanted.limit` entries, and whether there are more.

    Args:
        client: the server.
        index: a sorted set whose members, all of score 0, are the entries' keys.
        wanted: the part asked for.
        read: entries by their keys.
        fits: whether an entry passes the filters.
    """
    found: list[RowT] = []
    size, edge = wanted.limit + 1, f"({wanted.after}" if wanted.after else None
    while len(found) < size:
        low, high = ("+", "-") if wanted.order == "desc" else ("-", "+")
        command = "ZREVRANGEBYLEX" if wanted.order == "desc" else "ZRANGEBYLEX"
        raw = client.execute_command(command, index, edge or low, high, "LIMIT", 0, size)
        batch = [name.decode() for name in raw]
        found += [row for row in read(batch) if fits(row)]
        if len(batch) < size:
            break
        edge = f"({batch[-1]}"
    return found[: wanted.limit], len(found) > wanted.limit


def pairs(text: str | None) -> dict[str, str]:
    """Stored metadata."""
    found: dict[str, str] = json.loads(text) if text else {}
    return found
