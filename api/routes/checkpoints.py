"""A job's checkpoints, and where the job comes from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import BINARY, Id, ServicesDep, attachment
from service.checkpoints import CheckpointStore
from service.events import LIST_MOST
from warploom.errors import NotFound, Unavailable
from warploom.records import CheckpointInfo, Lineage, Page

router = APIRouter(tags=["jobs"])
META = "meta.safetensors"
Step = Annotated[int, Path(ge=0, le=10_000_000)]


@router.get("/jobs/{job_id}/checkpoints", summary="List a job's checkpoints")
def listing(job_id: Id, services: ServicesDep) -> Page[CheckpointInfo]:
    """The checkpoints that are stored, oldest first: the newest few and the best."""
    stored = services.jobs.checkpoints(job_id)
    if not stored:
        return Page[CheckpointInfo](data=[])
    measured: dict[int, dict[str, float]] = {}
    for event in services.events.list(job_id, limit=LIST_MOST):
        if event.kind == "evaluation" and "meta_step" in event.data:
            numbers = {name: value for name, value in event.data.items() if isinstance(value, int | float)}
            measured[int(numbers.pop("meta_step"))] = numbers
    rows = [one.model_copy(update={"metrics": measured.get(one.step, {})}) for one in stored]
    return Page[CheckpointInfo](data=rows)


@router.get(
    "/jobs/{job_id}/checkpoints/{step}/weights",
    summary="Download a checkpoint",
    response_class=Response,
    responses=BINARY,
)
def weights(job_id: Id, step: Step, services: ServicesDep) -> Response:
    """The meta-state as a safetensors file: `p/<name>` for what is learned, `s/<name>` for running statistics."""
    info = next((one for one in services.jobs.checkpoints(job_id) if one.step == step), None)
    if info is None:
        raise NotFound(f"{job_id} has no checkpoint of step {step}", field="step", rule="a stored step", value=step)
    found = CheckpointStore.of(services.settings, job_id).read(step)
    if found is None:
        raise Unavailable(
            f"{info.id} lies where this API process cannot read it, or is gone by now; with checkpoint_url an "
            "operator names a place that workers and API both reach"
        )
    return attachment(found.blobs[META], f"{info.id}.safetensors", info.sha256)


@router.get("/jobs/{job_id}/lineage", summary="Get a job's lineage")
def lineage(job_id: Id, services: ServicesDep) -> Lineage:
    """The spec as it was sent and with every default, the seed, the versions that ran it, and what it began with."""
    return services.jobs.lineage(job_id)
