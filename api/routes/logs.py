"""What a job's workers say: the last lines, or a stream of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.deps import Id, ServicesDep
from api.routes.events import STREAM, STREAM_HEADERS, LastEventId, event_id
from api.state import Services
from service.logs import fits, parse_line
from warploom.errors import WarploomError
from warploom.records import FINAL_STATES, LogLine, Page

router = APIRouter(tags=["jobs"])
Level = Literal["debug", "info", "warning", "error", "critical"]
Tail = Annotated[int, Query(ge=0, le=5000, description="most of the lines that are there; a stream begins with them")]
Worker = Annotated[str | None, Query(max_length=60, description="only those of this worker, as `rollout-0`")]
LeastLevel = Annotated[Level | None, Query(description="only those of this level or above")]
Follow = Annotated[bool, Query(description="go on with lines as they come, as server-sent events")]


@router.get(
    "/jobs/{job_id}/logs",
    summary="Read a job's log",
    response_model=Page[LogLine],
    responses={200: {"content": {STREAM: {"schema": {"type": "string"}}}}},
)
async def logs(
    request: Request,
    job_id: Id,
    services: ServicesDep,
    tail: Tail = 100,
    follow: Follow = False,
    worker: Worker = None,
    level: LeastLevel = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The last lines, oldest first; about 5000 are kept for a week.

    With `follow=true` or `Accept: text/event-stream` more come as they are said, until the job is over; `Last-Event-ID`
    resumes.
    """
    await run_in_threadpool(services.jobs.get, job_id)
    streaming = follow or STREAM in request.headers.get("accept", "")
    after = event_id(last_event_id) if streaming else None
    lines = [] if after else await run_in_threadpool(services.logs.tail, job_id, tail, worker, level)
    if not streaming:
        return JSONResponse(Page[LogLine](data=lines).model_dump(mode="json"))
    frames = _frames(services, job_id, lines, after, worker, level)
    return StreamingResponse(frames, media_type=STREAM, headers=STREAM_HEADERS)


async def _frames(
    services: Services, job_id: str, lines: list[LogLine], after: str | None, worker: str | None, level: str | None
) -> AsyncIterator[str]:
    async def ended() -> bool:
        return (await run_in_threadpool(services.jobs.get, job_id)).state in FINAL_STATES

    yield ": connected\n\n"
    for line in lines:
        yield _frame(line)
    begin = after or (lines[-1].id if lines else "")
    begin = begin or await run_in_threadpool(services.logs.last_id, job_id)
    try:
        async for item in services.live.logs(job_id, begin, ended, _parsed):
            if item is None:
                yield ": alive\n\n"
            elif fits(item.value[0], worker, level):
                yield item.value[1]
    except WarploomError as error:
        yield f": {error.code}\n\n"


def _parsed(entry_id: bytes, fields: Mapping[bytes, bytes]) -> tuple[LogLine, str]:
    line = parse_line(entry_id, fields)
    return line, _frame(line)


def _frame(line: LogLine) -> str:
    return f"id: {line.id}\nevent: log\ndata: {line.model_dump_json()}\n\n"
