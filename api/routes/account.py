"""What a key may ask about itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import CallerDep, ServicesDep
from service.tenancy import ADMIN
from service.usage import MOST_DAYS
from warploom.errors import Forbidden
from warploom.records import Identity, Page, UsageDay

router = APIRouter(tags=["account"])
Days = Annotated[int, Query(ge=1, le=MOST_DAYS, description="how many days back, today included")]
OfKey = Annotated[str | None, Query(max_length=100, description="id of another key of yours; needs scope admin")]


@router.get("/whoami", summary="Whose key this is")
def whoami(caller: CallerDep, services: ServicesDep) -> Identity:
    """The key's id, name, tenant and scopes."""
    key = services.keys.get(caller.key)
    return Identity(key=key.id, name=key.name, tenant=key.tenant, scopes=key.scopes, expires_at=key.expires_at)


@router.get("/usage", summary="What a key used")
def usage(caller: CallerDep, services: ServicesDep, days: Days = 30, key: OfKey = None) -> Page[UsageDay]:
    """Requests, jobs, tasks, calls, rows and bytes by day (UTC), today first; days without any are left out."""
    chosen = key or caller.key
    if chosen != caller.key:
        if ADMIN not in caller.scopes:
            rule = f"your own key, or a key with scope {ADMIN}"
            raise Forbidden("this is another key's usage", field="/key", rule=rule, value=chosen)
        services.keys.get(chosen)
    services.usage.flush()
    return Page[UsageDay](data=services.usage.days(chosen, days))
