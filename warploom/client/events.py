"""Server-sent events: a job's history, or its log, as it happens; resumed where the connection broke."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import httpx

from warploom.client import retries
from warploom.client.calls import Call
from warploom.client.core import Core
from warploom.errors import WarploomError
from warploom.records import FINAL_STATES, Event, LogLine

EventT = TypeVar("EventT", Event, LogLine)
ATTEMPTS = 8
# The service sends a comment every 15 seconds: three missing ones mean that nobody is there.
SILENCE_S = 45.0


def is_last(event: Event | LogLine) -> bool:
    """Whether this event ends the job's history."""
    return isinstance(event, Event) and event.kind == "state" and event.data.get("state") in FINAL_STATES


class Decoder(Generic[EventT]):
    """Reads a `text/event-stream` line by line; comments and what is no event are passed over.

    Example:
        >>> decoder = Decoder(Event)
        >>> stream = ["id: 1-0", "event: state", 'data: {"id": "1-0", "at": 2, "kind": "state"}', ""]
        >>> [decoder.feed(line) for line in stream][-1].kind
        'state'
    """

    def __init__(self, kind: type[EventT]) -> None:
        self._kind: type[EventT] = kind
        self._data: list[str] = []

    def feed(self, line: str) -> EventT | None:
        """The event that this line completes, if any."""
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        if line or not self._data:
            return None
        text, self._data = "\n".join(self._data), []
        with contextlib.suppress(ValueError):
            event: EventT = self._kind.model_validate(json.loads(text))
            return event
        return None


async def follow(
    core: Core,
    kind: type[EventT],
    path: str,
    after: str | None,
    ended: Callable[[], Awaitable[bool]],
    **params: Any,
) -> AsyncGenerator[EventT, None]:
    """The events at `path` after the event `after`, until the last one.

    Args:
        core: the service.
        kind: what they are.
        path: where they are.
        params: of the query.
        after: id of the last event that is known already.
        ended: asks whether there can be no more; used when a stream ends without a last event.

    Raises:
        Unavailable: the connection could not be made again.
        NotFound: no such job.
    """
    failures = 0
    while True:
        try:
            async with core.lines(_stream(path, after, params), SILENCE_S) as lines:
                decoder = Decoder(kind)
                async for line in lines:
                    if (event := decoder.feed(line)) is None:
                        continue
                    failures, after = 0, event.id
                    yield event
                    if is_last(event):
                        return
            if await ended():
                return
        except (httpx.TransportError, WarploomError) as error:
            if failures >= ATTEMPTS or not _passing(error):
                raise (core.unreachable(error) if isinstance(error, httpx.TransportError) else error) from error
        await core.sleep(retries.backoff(failures))
        failures += 1


def _passing(error: Exception) -> bool:
    status = error.status if isinstance(error, WarploomError) else 503
    return status in retries.NOT_DONE or status >= 500


def _stream(path: str, after: str | None, params: dict[str, Any]) -> Call[Any]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    return Call(method="GET", path=path, read=lambda _: None, options={"headers": headers, "params": params}, safe=True)
