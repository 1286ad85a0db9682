"""Streams of events: resumed where they broke, ended when the job has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.client.conftest import JOB, Recorder, ok
from warploom import errors
from warploom.client.events import Decoder
from warploom.records import Event

Maker = Callable[..., Any]


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self.text.encode()
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.text.encode()
        raise httpx.ReadError("reset")


def frame(number: int, kind: str = "round", **data: Any) -> str:
    event = {"id": f"{number}-0", "at": 1.0, "kind": kind, "data": data}
    return f"id: {number}-0\nevent: {kind}\ndata: {json.dumps(event)}\n\n"


def test_resumed_where_the_connection_broke(client_of: Maker) -> None:
    begin, rest = ": hello\n\n" + frame(1) + frame(2), frame(3) + frame(4, "state", state="succeeded")
    recorder = Recorder(
        httpx.Response(200, stream=Broken(begin)),
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.Response(200, text=rest),
    )
    with client_of(recorder) as client:
        assert [event.id for event in client.events("job_1")] == ["1-0", "2-0", "3-0", "4-0"]
    assert "last-event-id" not in recorder.requests[0].headers
    assert recorder.requests[3].headers["last-event-id"] == "2-0"


def test_a_job_whose_end_is_known_already(client_of: Maker) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        stream = request.url.path.endswith("/events")
        return httpx.Response(200, text=": nothing\n\n") if stream else ok(JOB | {"state": "succeeded"})

    with client_of(Recorder(answer)) as client:
        assert list(client.events("job_1", after="9-0")) == []


def test_a_stream_that_is_left_early_is_closed(client_of: Maker) -> None:
    class Body(Broken):
        closed = False

        def close(self) -> None:
            self.closed = True

        async def aclose(self) -> None:
            self.closed = True

    body = Body(frame(1) + frame(2))
    with client_of(Recorder(httpx.Response(200, stream=body))) as client:
        events = client.events("job_1")
        assert next(events).id == "1-0"
        events.close()
    assert body.closed


def test_gives_up_and_passes_errors_on(client_of: Maker) -> None:
    with client_of(Recorder(httpx.ConnectError("refused"))) as client, pytest.raises(errors.Unavailable):
        list(client.events("job_1"))
    problem = errors.NotFound("no such job").as_problem()
    with client_of(Recorder(httpx.Response(404, json=problem))) as client, pytest.raises(errors.NotFound):
        list(client.events("job_1"))


def test_unreadable_events_are_passed_over() -> None:
    decoder = Decoder(Event)
    lines = ["data: {broken", "", *frame(1).splitlines(), "", "data: {}", "", *frame(2).splitlines(), ""]
    assert [event.id for line in lines if (event := decoder.feed(line))] == ["1-0", "2-0"]
