"""Meta-training jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from api.deps import LISTED, Id, JsonOnly, Notes, Once, Sent, ServicesDep, WantedDep
from api.waiting import placed
from service import forks
from service.events import LIST_MOST
from warploom.curves import curves
from warploom.estimate import estimate
from warploom.records import DryRun, Job, Metrics, Page
from warploom.spec import JobSpec

router = APIRouter(tags=["jobs"])
DryRunFlag = Annotated[
    bool, Query(description="only check: answers 200 with the complete spec and an estimate, and makes nothing")
]
Keys = Annotated[list[str] | None, Query(max_length=100, description="only these; default: all")]


@router.post(
    "/jobs",
    summary="Submit a job",
    status_code=202,
    response_model=Job,
    dependencies=[JsonOnly],
    responses={200: {"model": DryRun, "description": "Dry run: nothing was made"}},
)
def submit(
    spec: JobSpec,
    services: ServicesDep,
    response: Response,
    sent: Sent,
    once: Once = None,
    dry_run: DryRunFlag = False,
) -> Job | Response:
    """Queue a job. With an `Idempotency-Key` a repeat is safe; the key with another body is refused (422)."""
    told = estimate(spec)
    spec = forks.resolved(services.jobs, spec)
    if dry_run:
        return JSONResponse(DryRun(spec=spec.to_json(), estimate=told).model_dump(mode="json"))
    job = services.jobs.create(spec, once, sent=sent, forked_from=spec.from_checkpoint)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return placed(services, job)


@router.get("/jobs", summary="List jobs", openapi_extra=LISTED)
def listing(services: ServicesDep, wanted: WantedDep) -> Page[Job]:
    """Jobs, newest first unless asked otherwise."""
    page = services.jobs.list(wanted)
    return page.model_copy(update={"data": [placed(services, job) for job in page.data]})


@router.get("/jobs/{job_id}", summary="Get a job")
def one(job_id: Id, services: ServicesDep) -> Job:
    """One job."""
    return placed(services, services.jobs.get(job_id))


@router.patch("/jobs/{job_id}", summary="Change a job's metadata", dependencies=[JsonOnly])
def note(job_id: Id, notes: Notes, services: ServicesDep) -> Job:
    """Set pairs of metadata, or remove them with null; the rest stays. At most 16 are kept."""
    return placed(services, services.jobs.note(job_id, notes.metadata))


@router.get("/jobs/{job_id}/metrics", summary="Get a job's metrics")
def metrics(
    job_id: Id,
    services: ServicesDep,
    keys: Keys = None,
    from_step: Annotated[int, Query(ge=0, description="the first round")] = 0,
    max_points: Annotated[int, Query(ge=1, le=10_000, description="most points of each curve")] = 1000,
) -> Metrics:
    """Numbers of rounds by name (`support_loss`), and of evaluations (`held_out/accuracy`), evenly thinned out."""
    return curves(services.events.list(job_id, limit=LIST_MOST), keys or (), from_step, max_points)


@router.post("/jobs/{job_id}/pause", summary="Pause a job")
def pause(job_id: Id, services: ServicesDep) -> Job:
    """Let a job rest: it saves a checkpoint, gives up its actors and waits. A repeat changes nothing; a job that has
    ended or is being cancelled is a conflict (409)."""
    return services.jobs.pause(job_id)


@router.post("/jobs/{job_id}/resume", summary="Resume a job")
def resume(job_id: Id, services: ServicesDep) -> Job:
    """Queue a paused job again; it goes on from its last checkpoint. A repeat changes nothing; a job that has ended or
    is being cancelled is a conflict (409)."""
    return placed(services, services.jobs.resume(job_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job")
def cancel(job_id: Id, services: ServicesDep) -> Job:
    """Ask a job to stop. A repeat changes nothing; a job that has succeeded or failed is a conflict (409)."""
    return services.jobs.cancel(job_id)
