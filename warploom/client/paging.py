"""Lists that come in pages."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from pydantic import PrivateAttr

from warploom.client.calls import Call
from warploom.client.core import Core
from warploom.client.transport import finish, iterate
from warploom.records import Page

T = TypeVar("T")


class AsyncPages(Generic[T]):
    """A list on the service. Awaited: its first page. Iterated: every object of this page and all later ones.

    Example:
        >>> page = await client.jobs(limit=5)                 # doctest: +SKIP
        >>> async for job in client.jobs(): print(job.id)     # doctest: +SKIP
    """

    def __init__(
        self, core: Core, plan: Callable[..., Call[Page[Any]]], asked: inspect.BoundArguments, bound: Callable[[Any], T]
    ) -> None:
        self._core, self._plan, self._asked, self._bound = core, plan, asked, bound

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self.page().__await__()

    def __aiter__(self) -> AsyncGenerator[T, None]:
        return self.items()

    async def page(self, after: str | None = None) -> Page[T]:
        """The page that was asked for, or the one after the object `after`."""
        options = dict(self._asked.arguments) | ({} if after is None else {"after": after})
        found = await self._core.do(self._plan(**options))
        return Page[Any](data=[self._bound(item) for item in found.data], has_more=found.has_more)

    async def items(self, page: Page[T] | None = None) -> AsyncGenerator[T, None]:
        """The objects of `page` (default: the first) and of all after it."""
        page = page or await self.page()
        while True:
            for item in page.data:
                yield item
            if not page.has_more or not page.data:
                return
            page = await self.page(_cursor(page.data[-1]))


def _cursor(item: Any) -> str:
    return str(item.id if hasattr(item, "id") else item.name)


class Pages(Page[T]):
    """One page of a list (`data`, `has_more`). Iterated: every object of this page and all later ones.

    Example:
        >>> for job in client.jobs(state="failed"): print(job.id)  # doctest: +SKIP
    """

    _list: AsyncPages[Any] = PrivateAttr()

    @classmethod
    def first(cls, whole: AsyncPages[T]) -> Pages[T]:
        """The first page of a list, over a blocking transport."""
        page = finish(whole.page())
        pages = cls.model_construct(data=page.data, has_more=page.has_more)
        pages._list = whole
        return pages

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        return iterate(self._list.items(self))
