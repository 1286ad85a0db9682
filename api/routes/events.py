"""The history of a job or a sweep: as pages, or as server-sent events while it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.deps import After, Id, Limit, ServicesDep
from api.live import is_last
from api.state import Services
from service.events import check_event_id, parse_entry
from warploom.errors import WarploomError
from warploom.records import FINAL_STATES, Event, Job, Page, Sweep

router = APIRouter()
Look = Callable[[str], Job | Sweep]
STREAM = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LastEventId = Annotated[
    str | None, Header(max_length=100, description="server-sent events: id of the last event received")
]


STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {STREAM: {"schema": {"type": "string"}}}}}


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job's events",
    tags=["jobs"],
    response_model=Page[Event],
    responses=STREAMED,
)
async def events(
    request: Request,
    job_id: Id,
    services: ServicesDep,
    after: After = None,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """Events after `after`, oldest first.

    With `Accept: text/event-stream` they come as they happen, each with its id, until the job's last one;
    `Last-Event-ID` resumes.
    """
    asked = _Asked(job_id, services.jobs.get, after, limit, last_event_id)
    return await _answer(request, services, asked)


@router.get(
    "/sweeps/{sweep_id}/events",
    summary="Follow a sweep's events",
    tags=["sweeps"],
    response_model=Page[Event],
    responses=STREAMED,
)
async def sweep_events(
    request: Request,
    sweep_id: Id,
    services: ServicesDep,
    after: After = None,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """Events after `after`, oldest first: changes of state, and of kind `trial` whenever a trial's row changes.

    With `Accept: text/event-stream` they come as they happen, as those of a job.
    """
    asked = _Asked(sweep_id, services.sweeps.get, after, limit, last_event_id)
    return await _answer(request, services, asked)


class _Asked(NamedTuple):
    """Whose events are asked for, how that is looked at, and from where on."""

    owner_id: str
    look: Look
    after: str | None
    limit: int
    last_event_id: str | None


async def _answer(request: Request, services: Services, asked: _Asked) -> Response:
    streaming = STREAM in request.headers.get("accept", "")
    cursor = event_id(asked.last_event_id if streaming and asked.last_event_id else asked.after)
    await run_in_threadpool(asked.look, asked.owner_id)
    if not streaming:
        page = await run_in_threadpool(_page, services, asked.owner_id, cursor, asked.limit)
        return JSONResponse(page.model_dump(mode="json"))
    frames = _frames(services, asked.owner_id, asked.look, cursor)
    return StreamingResponse(frames, media_type=STREAM, headers=STREAM_HEADERS)


def event_id(text: str | None) -> str | None:
    """The id of an event or a line, completed where its second part was left out."""
    return None if text is None else check_event_id(text if "-" in text else f"{text}-0")


def _page(services: Services, owner_id: str, after: str | None, limit: int) -> Page[Event]:
    found = services.events.list(owner_id, after=after, limit=limit + 1)
    return Page[Event](data=found[:limit], has_more=len(found) > limit)


class Framed(NamedTuple):
    """An event as it is sent."""

    text: str
    last: bool


async def _frames(services: Services, owner_id: str, look: Look, after: str | None) -> AsyncIterator[str]:
    async def ended() -> bool:
        return (await run_in_threadpool(look, owner_id)).state in FINAL_STATES

    # A first byte at once, so that the caller knows that it is connected.
    yield ": connected\n\n"
    try:
        async for item in services.live.events(owner_id, after, ended, _framed):
            if item is None:
                yield ": alive\n\n"
                continue
            yield item.value.text
            if item.value.last:
                return
    except WarploomError as error:
        # Too late for a status; the caller sees the end of the stream and resumes.
        yield f": {error.code}\n\n"


def _framed(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Framed:
    """A raw entry as it is sent; made once for all that follow the job."""
    event = parse_entry(entry_id, fields)
    return Framed(frame(event), is_last(event))


def frame(event: Event) -> str:
    """One event in the format of server-sent events; the data is the whole event as JSON."""
    kind = "".join(letter for letter in event.kind if letter.isprintable())
    return f"id: {event.id}\nevent: {kind}\ndata: {event.model_dump_json()}\n\n"
