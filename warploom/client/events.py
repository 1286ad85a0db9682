"""A job's events as they happen, over server-sent events, resumed where the connection broke."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator

import httpx

from warploom.client.transport import Transport, backoff
from warploom.errors import Unavailable
from warploom.records import FINAL_STATES, Event

ATTEMPTS = 8
# The service sends a comment every 15 seconds: three missing ones mean that nobody is there.
SILENCE_S = 45.0


def is_last(event: Event) -> bool:
    """Whether this event ends the job's history."""
    return event.kind == "state" and event.data.get("state") in FINAL_STATES


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a `text/event-stream`; comments and unreadable events are passed over.

    Example:
        >>> stream = ["id: 1-0", "event: state", 'data: {"id": "1-0", "at": 2, "kind": "state"}', ""]
        >>> next(parse(stream)).kind
        'state'
    """
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            with contextlib.suppress(ValueError):
                yield Event.model_validate(json.loads("\n".join(data)))
            data = []


def follow(transport: Transport, job: str, after: str | None, ended: Callable[[], bool]) -> Iterator[Event]:
    """The events of `job` after the event `after`, until the last one.

    Args:
        transport: the service.
        job: its id.
        after: id of the last event that is known already.
        ended: asks whether the job is in a final state; used when a stream ends without a last event.

    Raises:
        Unavailable: the connection could not be made again.
        NotFound: no such job.
    """
    failures = 0
    while True:
        try:
            for event in _once(transport, job, after):
                failures, after = 0, event.id
                yield event
                if is_last(event):
                    return
            if ended():
                return
        except (httpx.TransportError, Unavailable) as error:
            if failures >= ATTEMPTS:
                raise transport.unreachable(error) from error
        transport.pause(backoff(failures))
        failures += 1


def _once(transport: Transport, job: str, after: str | None) -> Iterator[Event]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    timeout = httpx.Timeout(SILENCE_S, connect=10.0)
    for answer in transport.stream(f"/v1/jobs/{job}/events", headers=headers, timeout=timeout):
        yield from parse(answer.iter_lines())
