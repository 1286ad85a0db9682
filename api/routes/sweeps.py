"""Sweeps over the fields of a job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from api.deps import LISTED, Id, JsonOnly, Notes, Once, ServicesDep, WantedDep
from service.promotion import promote as promoted
from warploom.configs import Config
from warploom.errors import InvalidInput
from warploom.records import Model, Page, Sweep
from warploom.spec import ALIAS_PATTERN, NAME_PATTERN, SweepSpec

router = APIRouter(tags=["sweeps"])


class Promotion(Config):
    """What to make a model of, and how to call it."""

    trial: Annotated[str | None, Field(max_length=100, description="its id; default: the best so far")] = None
    name: Annotated[str | None, Field(pattern=NAME_PATTERN, description="of the model; default: the sweep's")] = None
    alias: Annotated[str | None, Field(pattern=ALIAS_PATTERN, description="that is to stand for the version")] = None


@router.post("/sweeps", summary="Submit a sweep", status_code=202, dependencies=[JsonOnly])
def submit(spec: SweepSpec, services: ServicesDep, response: Response, once: Once = None) -> Sweep:
    """Queue a sweep. With an `Idempotency-Key` a repeat is safe; the key with another body is refused (422)."""
    most = services.limits.most("sweep_trials")
    if spec.num_samples > most:
        rule = f"at most {most} trials with this key"
        message = f"/num_samples: must be {rule}, got {spec.num_samples}"
        raise InvalidInput(message, field="/num_samples", rule=rule, value=spec.num_samples)
    sweep = services.sweeps.create(spec, once)
    response.headers["Location"] = f"/v1/sweeps/{sweep.id}"
    return sweep


@router.get("/sweeps", summary="List sweeps", openapi_extra=LISTED)
def listing(services: ServicesDep, wanted: WantedDep) -> Page[Sweep]:
    """Sweeps, newest first unless asked otherwise."""
    return services.sweeps.list(wanted)


@router.get("/sweeps/{sweep_id}", summary="Get a sweep")
def one(sweep_id: Id, services: ServicesDep) -> Sweep:
    """One sweep with its trials."""
    return services.sweeps.get(sweep_id)


@router.patch("/sweeps/{sweep_id}", summary="Change a sweep's metadata", dependencies=[JsonOnly])
def note(sweep_id: Id, notes: Notes, services: ServicesDep) -> Sweep:
    """Set pairs of metadata, or remove them with null; the rest stays. At most 16 are kept."""
    return services.sweeps.note(sweep_id, notes.metadata)


@router.post("/sweeps/{sweep_id}/pause", summary="Pause a sweep")
def pause(sweep_id: Id, services: ServicesDep) -> Sweep:
    """Let a sweep rest: no trial begins, those that run save their state after their round and pause. A repeat changes
    nothing; a sweep that has ended, or is being stopped or cancelled, is a conflict (409)."""
    return services.sweeps.pause(sweep_id)


@router.post("/sweeps/{sweep_id}/resume", summary="Resume a sweep")
def resume(sweep_id: Id, services: ServicesDep) -> Sweep:
    """Queue a paused sweep again; its paused trials go on from where they were, and then new ones begin. A repeat
    changes nothing; a sweep that has ended, or is being stopped or cancelled, is a conflict (409)."""
    return services.sweeps.resume(sweep_id)


@router.post("/sweeps/{sweep_id}/stop", summary="Stop a sweep")
def stop(sweep_id: Id, services: ServicesDep) -> Sweep:
    """End a sweep early with what it has: no trial begins, those that run are measured after their round and end, and
    the best of all becomes a model. The sweep then has `succeeded`; one that has measured nothing is `cancelled`. A
    repeat changes nothing; a sweep that failed, or is being cancelled, is a conflict (409)."""
    return services.sweeps.stop(sweep_id)


@router.post("/sweeps/{sweep_id}/cancel", summary="Cancel a sweep")
def cancel(sweep_id: Id, services: ServicesDep) -> Sweep:
    """End a sweep at once, without a model; `stop` ends it with one. A repeat changes nothing; a sweep that has
    succeeded or failed is a conflict (409)."""
    return services.sweeps.cancel(sweep_id)


@router.post("/sweeps/{sweep_id}/promote", summary="Make a model of a trial", dependencies=[JsonOnly])
def promote(sweep_id: Id, body: Promotion, services: ServicesDep) -> Model:
    """Register the best trial so far, or a named one, as a version of a model that can be adapted; the sweep may still
    run. A repeat gives the version that is there. A sweep, or a trial, without an evaluation is a conflict (409)."""
    sweep = services.sweeps.get(sweep_id)
    model = promoted(services.models, services.settings, sweep, trial=body.trial, name=body.name)
    if body.alias is not None:
        services.models.point(model.name, body.alias, model.version)
    return services.models.get(model.name, model.version)
