"""API keys, for admins: those of the default tenant manage all keys, others those of their own tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import After, Id, JsonOnly, Limit, ServicesDep
from service.auth import LONGEST_GRACE_S
from service.limits import NAMES
from service.tenancy import SCOPES, TENANT_PATTERN
from warploom.records import ApiKey, NewApiKey, Page

router = APIRouter(tags=["keys"])
NO_STORE = {"Cache-Control": "no-store"}


Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", description="what for")]
Scopes = Annotated[list[str], Field(min_length=1, max_length=len(SCOPES), description=", ".join(SCOPES))]
Limits = Annotated[dict[str, int], Field(description=f"in place of the service's: {', '.join(NAMES)}")]


class Strict(BaseModel):
    """A body whose numbers are numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class KeyBody(Strict):
    """A key to make."""

    name: Name
    tenant: Annotated[str | None, Field(pattern=TENANT_PATTERN, description="default: your own")] = None
    scopes: Scopes = list(SCOPES[:3])
    expires_at: Annotated[float | None, Field(gt=0, lt=1e11, description="seconds since the epoch")] = None
    limits: Limits = {}


class KeyChanges(Strict):
    """What to change of a key; scopes and limits are given whole."""

    name: Name | None = None
    scopes: Scopes | None = None
    limits: Limits | None = None


class RotateBody(Strict):
    """How to rotate."""

    grace_s: Annotated[float, Field(ge=0, le=LONGEST_GRACE_S, description="seconds that the old secret works")] = 3600


@router.post("/keys", summary="Make a key", status_code=201, dependencies=[JsonOnly])
def create(body: KeyBody, services: ServicesDep, response: Response) -> NewApiKey:
    """A new API key. Its `secret` is in this answer and can never be read again."""
    made = services.keys.create(**body.model_dump())
    response.headers.update(NO_STORE | {"Location": f"/v1/keys/{made.id}"})
    return made


@router.get("/keys", summary="List keys")
def listing(services: ServicesDep, limit: Limit = 20, after: After = None) -> Page[ApiKey]:
    """Keys, newest first, also revoked ones; never their secrets."""
    return services.keys.list(limit=limit, after=after)


@router.get("/keys/{key_id}", summary="Get a key")
def one(key_id: Id, services: ServicesDep) -> ApiKey:
    """One key."""
    return services.keys.get(key_id)


@router.patch("/keys/{key_id}", summary="Change a key", dependencies=[JsonOnly])
def change(key_id: Id, body: KeyChanges, services: ServicesDep) -> ApiKey:
    """Change what is named, from the next request on; its secret stays. A revoked key is a conflict (409), and so is
    taking `admin` from the key in use."""
    return services.keys.change(key_id, **body.model_dump())


@router.post("/keys/{key_id}/rotate", summary="Rotate a key", dependencies=[JsonOnly])
def rotate(key_id: Id, body: RotateBody, services: ServicesDep, response: Response) -> NewApiKey:
    """A new secret for a key; the old one works for `grace_s` more seconds. A revoked key is a conflict (409)."""
    made = services.keys.rotate(key_id, body.grace_s)
    response.headers.update(NO_STORE)
    return made


@router.post("/keys/{key_id}/revoke", summary="Revoke a key")
def revoke(key_id: Id, services: ServicesDep) -> ApiKey:
    """Have a key open nothing any more, at once. A repeat changes nothing."""
    return services.keys.revoke(key_id)
