"""What a job may name, and how much a request may ask for."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.deps import ServicesDep
from warploom.catalog import catalog
from warploom.records import Catalog, LimitUse

router = APIRouter(tags=["catalogue"])


class Limits(BaseModel):
    """The limits of this service."""

    max_body_bytes: int
    max_steps: int
    max_support_rows: int
    adaptation_ttl_s: int
    adapt_wait_s: float
    limits: dict[str, LimitUse] = Field(description="of your key, by name: what it may, and how much of that is used")


@cache
def _catalog() -> Catalog:
    return catalog()


@router.get("/catalog", summary="What a job may name")
def listing() -> Catalog:
    """All algorithms, task families and models, with the JSON schema of their options."""
    return _catalog()


@router.get("/limits", summary="Limits of this service and of your key")
def limits(services: ServicesDep) -> Limits:
    """The limits of this service, and those of your key with what is used of them."""
    ours = {name: getattr(services.settings, name) for name in Limits.model_fields if name != "limits"}
    return Limits(**ours, limits=services.limits.uses())
