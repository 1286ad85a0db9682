"""Who did what, for admins."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import After, Limit, ServicesDep
from warploom.records import AuditEntry, Page

router = APIRouter(tags=["account"])


@router.get("/audit", summary="Read the audit log")
def listing(services: ServicesDep, limit: Limit = 100, after: After = None) -> Page[AuditEntry]:
    """Calls that changed something or were refused, newest first: of your tenant, or of all for its operator."""
    return services.audit.list(limit=limit, after=after)
