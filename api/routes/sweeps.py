"""Sweeps over the fields of a job."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.deps import After, Id, JsonOnly, Limit, Once, ServicesDep, State
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


@router.get("/sweeps", summary="List sweeps")
def listing(services: ServicesDep, limit: Limit = 20, after: After = None, state: State = None) -> Page[Sweep]:
    """Sweeps, newest first."""
    return services.sweeps.list(limit=limit, after=after, state=state)


@router.get("/sweeps/{sweep_id}", summary="Get a sweep")
def one(sweep_id: Id, services: ServicesDep) -> Sweep:
    """One sweep with its trials."""
    return services.sweeps.get(sweep_id)


@router.post("/sweeps/{sweep_id}/cancel", summary="Cancel a sweep")
def cancel(sweep_id: Id, services: ServicesDep) -> Sweep:
    """Ask a sweep to stop. A repeat changes nothing."""
    return services.sweeps.cancel(sweep_id)
