"""Sweeps over the fields of a job."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.deps import LISTED, Id, JsonOnly, Notes, Once, ServicesDep, WantedDep
from warploom.errors import InvalidInput
from warploom.records import Page, Sweep
from warploom.spec import SweepSpec

router = APIRouter(tags=["sweeps"])


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


@router.post("/sweeps/{sweep_id}/cancel", summary="Cancel a sweep")
def cancel(sweep_id: Id, services: ServicesDep) -> Sweep:
    """Ask a sweep to stop. A repeat changes nothing."""
    return services.sweeps.cancel(sweep_id)
