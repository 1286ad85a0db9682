"""A job's history: as pages, or as server-sent events while it happens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.deps import After, Id, Limit, ServicesDep
from api.state import Services
from warploom.errors import InvalidInput, WarploomError
from warploom.records import FINAL_STATES, Event, Page

router = APIRouter(tags=["jobs"])
STREAM = "text/event-stream"
EVENT_ID = re.compile(r"^\d{1,20}(-\d{1,20})?$")
LAST = Header(max_length=100, description="server-sent events: id of the last event received")


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job's events",
    response_model=Page[Event],
    responses={200: {"content": {STREAM: {"schema": {"type": "string"}}}}},
)
async def events(
    request: Request,
    job_id: Id,
    services: ServicesDep,
    after: After = None,
    limit: Limit = 100,
    last_event_id: Annotated[str | None, LAST] = None,
) -> Response:
    """Events after `after`, oldest first.

    With `Accept: text/event-stream` they come as they happen, each with its id, until the job's last one;
    `Last-Event-ID` resumes.
    """
    streaming = STREAM in request.headers.get("accept", "")
    cursor = _event_id(last_event_id if streaming and last_event_id else after)
    if not streaming:
        page = await run_in_threadpool(_page, services, job_id, cursor, limit)
        return JSONResponse(page.model_dump(mode="json"))
    await run_in_threadpool(services.jobs.get, job_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_frames(services, job_id, cursor), media_type=STREAM, headers=headers)


def _event_id(text: str | None) -> str | None:
    if text is None or EVENT_ID.match(text):
        return text
    raise InvalidInput("/after: is no event id", field="/after", rule="the id of an event", value=text)


def _page(services: Services, job_id: str, after: str | None, limit: int) -> Page[Event]:
    found = services.events.list(job_id, after=after, limit=limit + 1)
    return Page[Event](data=found[:limit], has_more=len(found) > limit)


async def _frames(services: Services, job_id: str, after: str | None) -> AsyncIterator[str]:
    async def ended() -> bool:
        return (await run_in_threadpool(services.jobs.get, job_id)).state in FINAL_STATES

    # A first byte at once, so that the caller knows that it is connected.
    yield ": connected\n\n"
    try:
        async for event in services.live.events(job_id, after, ended):
            yield ": alive\n\n" if event is None else frame(event)
    except WarploomError as error:
        # Too late for a status; the caller sees the end of the stream and resumes.
        yield f": {error.code}\n\n"


def frame(event: Event) -> str:
    """One event in the format of server-sent events; the data is the whole event as JSON."""
    kind = "".join(letter for letter in event.kind if letter.isprintable())
    return f"id: {event.id}\nevent: {kind}\ndata: {event.model_dump_json()}\n\n"
