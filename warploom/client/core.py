"""A connection to a service: calls with their repeats, and streams. Written once for both clients."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx

from warploom import __version__
from warploom.client import retries
from warploom.client.calls import Call
from warploom.client.endpoint import Endpoint
from warploom.client.problems import checked
from warploom.client.transport import Transport
from warploom.errors import TimedOut, Unavailable

T = TypeVar("T")
CONNECT_S = 10.0


def headers_of(endpoint: Endpoint) -> dict[str, str]:
    """The headers of every request."""
    headers = {"User-Agent": f"warploom/{__version__}"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers


@dataclass(frozen=True, kw_only=True)
class Core:
    """A service, and how to talk to it.

    Args:
        url: the service's address, for messages.
        transport: blocking or asynchronous.
        max_retries: how often a request is made again after a failure that may pass.
        timeout_s: longest wait for one answer.
    """

    url: str
    transport: Transport
    max_retries: int
    timeout_s: float

    def using(self, **changes: Any) -> Core:
        """The same connections with other options."""
        return replace(self, **changes)

    async def do(self, call: Call[T]) -> T:
        """The result of a call, which is made again as `warploom.client.retries` says.

        Raises:
            WarploomError: the subclass that the service's problem document names.
            Unavailable: the service cannot be reached.
        """
        for attempt in itertools.count():
            last, answer = attempt >= self.max_retries, None
            try:
                answer = await self.transport.send(self._request(call, self.timeout_s))
            except httpx.TransportError as error:
                if last or not retries.after_failure(call, error):
                    raise self.unreachable(error) from error
            else:
                if last or not retries.after_answer(call, answer):
                    return call.read(checked(answer))
            await self.sleep(retries.pause(attempt, answer))
        raise AssertionError("the last attempt returns or raises")

    @contextlib.asynccontextmanager
    async def lines(self, call: Call[Any], silence_s: float) -> AsyncIterator[AsyncIterator[str]]:
        """The answer to one attempt at a call, line by line.

        Raises:
            httpx.TransportError: no connection, one that broke, or `silence_s` seconds without a byte.
            WarploomError: the service refused.
        """
        answer = await self.transport.send(self._request(call, silence_s), stream=True)
        try:
            if not answer.is_success:
                await self.transport.read(answer)
            yield self.transport.lines(checked(answer))
        finally:
            await self.transport.close(answer)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self.transport.sleep(seconds)

    def _request(self, call: Call[Any], timeout_s: float) -> httpx.Request:
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S, self.timeout_s))
        return self.transport.request(call.method, call.path, timeout, **call.options)

    def unreachable(self, error: Exception) -> Unavailable:
        """The error to raise when there is no answer."""
        if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            return TimedOut(f"no answer from {self.url} within {self.timeout_s:g} s", value=self.timeout_s)
        what = str(error) or type(error).__name__
        return Unavailable(
            f"cannot reach the service at {self.url}: {what}. Is it running (`warploom up`)? "
            "WARPLOOM_URL says where it is."
        )
