"""Jobs that begin with another job's checkpoint."""

from __future__ import annotations

import re

from service.jobs import JobStore
from warploom.errors import InvalidInput, NotFound
from warploom.estimate import sizes
from warploom.records import CheckpointInfo
from warploom.spec import JobSpec

FIELD = "/from_checkpoint"


def checkpoint_id(job_id: str, step: int) -> str:
    """The id of a job's checkpoint.

    Example:
        >>> source(checkpoint_id("job_00000000000000000000", 7))
        ('job_00000000000000000000', 7)
    """
    return f"ckpt_{job_id.removeprefix('job_')}_{step}"


def source(given: str) -> tuple[str, int | None]:
    """The job of a checkpoint's id or of a job's, and the step if it says one."""
    match = re.fullmatch(r"ckpt_([0-9a-z]{20})_(\d{1,10})", given)
    return (f"job_{match[1]}", int(match[2])) if match else (given, None)


def resolved(jobs: JobStore, spec: JobSpec) -> JobSpec:
    """The spec with the id of the checkpoint that it begins with, if any, checked against the job that made that.

    Raises:
        InvalidInput: no such checkpoint, one that does not fit, or no rounds left to do.
    """
    if spec.from_checkpoint is None:
        return spec
    found, origin = _find(jobs, spec.from_checkpoint)
    _check_fit(origin, spec, found)
    return spec.model_copy(update={"from_checkpoint": found.id})


def _find(jobs: JobStore, given: str) -> tuple[CheckpointInfo, JobSpec]:
    job_id, step = source(given)
    try:
        known = jobs.checkpoints(job_id)
        fitting = [one for one in known if step in (None, one.step)]
        origin = JobSpec.parse(jobs.get(job_id).spec)
    except NotFound:
        fitting = []
    if not fitting:
        raise InvalidInput(
            f"{FIELD}: no checkpoint {given!r} is stored", field=FIELD, rule="a stored checkpoint", value=given
        )
    return fitting[-1], origin


def _check_fit(origin: JobSpec, spec: JobSpec, found: CheckpointInfo) -> None:
    alike = {
        "/algorithm/name": (origin.algorithm.name, spec.algorithm.name),
        "/model": (origin.model.model_dump(mode="json"), spec.model.model_dump(mode="json")),
        "/task": ((origin.task.input_shape, origin.task.outputs), (spec.task.input_shape, spec.task.outputs)),
        "/algorithm": (sizes(origin), sizes(spec)),
    }
    for field, (there, here) in alike.items():
        if there != here:
            rule = f"as in {found.job}: {there}"
            raise InvalidInput(f"{field}: does not fit {found.id}; it must be {rule}", field=field, rule=rule)
    if spec.training.rounds <= found.step:
        rule = f"above {found.step}, the step of {found.id}"
        field = "/training/rounds"
        raise InvalidInput(f"{field}: must be {rule}", field=field, rule=rule, value=spec.training.rounds)
