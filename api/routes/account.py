"""What a key may ask about itself."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import CallerDep, ServicesDep
from warploom.records import Identity

router = APIRouter(tags=["account"])


@router.get("/whoami", summary="Whose key this is")
def whoami(caller: CallerDep, services: ServicesDep) -> Identity:
    """The key's id, name, tenant and scopes."""
    key = services.keys.get(caller.key)
    return Identity(key=key.id, name=key.name, tenant=key.tenant, scopes=key.scopes, expires_at=key.expires_at)
