"""The only place where the blocking and the asynchronous client differ: who sends, who waits, who reads lines.

Everything above is written once, with `async def`. The blocking transport's coroutines never suspend, so `finish` runs
them to their end without an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

import httpx

T = TypeVar("T")


class Transport(Protocol):
    """What the core needs of a network."""

    def request(self, method: str, path: str, timeout: httpx.Timeout, **options: Any) -> httpx.Request:
        """A request to the service."""
        ...

    async def send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        """The answer; its body is read unless it is to be read as a `stream`."""
        ...

    async def read(self, answer: httpx.Response) -> None:
        """Read the rest of a body."""
        ...

    def lines(self, answer: httpx.Response) -> AsyncIterator[str]:
        """The body as it comes, line by line."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    async def close(self, what: httpx.Response | None = None) -> None:
        """Close an answer that was not read to its end, or all connections."""
        ...


class Blocking:
    """httpx's blocking client."""

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None] = time.sleep) -> None:
        self.http, self._sleep = http, sleep

    def request(self, method: str, path: str, timeout: httpx.Timeout, **options: Any) -> httpx.Request:
        return self.http.build_request(method, path, timeout=timeout, **options)

    async def send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        return self.http.send(request, stream=stream)

    async def read(self, answer: httpx.Response) -> None:
        answer.read()

    async def lines(self, answer: httpx.Response) -> AsyncIterator[str]:
        for line in answer.iter_lines():
            yield line

    async def sleep(self, seconds: float) -> None:
        self._sleep(seconds)

    async def close(self, what: httpx.Response | None = None) -> None:
        (what or self.http).close()


class Asynchronous:
    """httpx's asynchronous client, under asyncio."""

    def __init__(self, http: httpx.AsyncClient, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.http, self._sleep = http, sleep

    def request(self, method: str, path: str, timeout: httpx.Timeout, **options: Any) -> httpx.Request:
        return self.http.build_request(method, path, timeout=timeout, **options)

    async def send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        return await self.http.send(request, stream=stream)

    async def read(self, answer: httpx.Response) -> None:
        await answer.aread()

    def lines(self, answer: httpx.Response) -> AsyncIterator[str]:
        return answer.aiter_lines()

    async def sleep(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def close(self, what: httpx.Response | None = None) -> None:
        await (what or self.http).aclose()


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends.

    Example:
        >>> async def three():
        ...     return 3
        >>> finish(three())
        3
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a blocking transport never suspends")


def iterate(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """The items of an asynchronous generator that never suspends."""
    try:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield finish(items.__anext__())
    finally:
        finish(items.aclose())
