"""Trained models and their weights."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.deps import (
    BINARY,
    LISTED,
    JsonOnly,
    Limit,
    ModelName,
    ModelRef,
    Notes,
    ServicesDep,
    Version,
    WantedModels,
    attachment,
)
from warploom.configs import Config
from warploom.records import Model, Page
from warploom.spec import ALIAS_PATTERN

router = APIRouter(tags=["models"])


class Pointed(Config):
    """What an alias is to stand for."""

    version: int = Field(ge=1)


Alias = Annotated[str, Path(pattern=ALIAS_PATTERN)]
Number = Annotated[int, Path(ge=1, le=10**9)]
AfterVersion = Annotated[int, Query(ge=0, le=10**9, description="number of the last version known")]


@router.get("/models", summary="List models", openapi_extra=LISTED)
def listing(services: ServicesDep, wanted: WantedModels) -> Page[Model]:
    """The latest version of every model, by name."""
    return services.models.list(wanted)


@router.get("/models/{name}", summary="Get a model")
def one(name: ModelRef, services: ServicesDep, version: Version = None) -> Model:
    """One model."""
    return services.models.get(name, version)


@router.patch("/models/{name}", summary="Change a model's metadata", dependencies=[JsonOnly])
def note(name: ModelName, notes: Notes, services: ServicesDep) -> Model:
    """Set pairs of metadata, or remove them with null; the rest stays. At most 16 are kept."""
    return services.models.note(name, notes.metadata)


@router.get(
    "/models/{name}/weights",
    summary="Download a model's weights",
    response_class=Response,
    responses=BINARY,
)
def weights(name: ModelRef, services: ServicesDep, version: Version = None) -> Response:
    """The weights as a safetensors file."""
    model = services.models.get(name, version)
    blob = services.models.blob(model.name, model.version)
    return attachment(blob, f"{model.name}-{model.version}.safetensors", model.sha256)


@router.get("/models/{name}/versions", summary="List a model's versions")
def versions(name: ModelName, services: ServicesDep, limit: Limit = 100, after: AfterVersion = 0) -> Page[Model]:
    """All versions of a model, oldest first."""
    return services.models.versions(name, after, limit)


@router.get("/models/{name}/versions/{version}", summary="Get a version of a model")
def one_version(name: ModelName, version: Number, services: ServicesDep) -> Model:
    """One version."""
    return services.models.get(name, version)


@router.get(
    "/models/{name}/versions/{version}/weights",
    summary="Download a version's weights",
    response_class=Response,
    responses=BINARY,
)
def version_weights(name: ModelName, version: Number, services: ServicesDep) -> Response:
    """The meta-state as a safetensors file whose header holds the spec: all that is needed to adapt it elsewhere."""
    return weights(name, services, version)


@router.get("/models/{name}/aliases", summary="List a model's aliases")
def aliases(name: ModelName, services: ServicesDep) -> dict[str, int]:
    """The versions that the aliases stand for."""
    return services.models.aliases(name)


@router.put("/models/{name}/aliases/{alias}", summary="Move an alias", dependencies=[JsonOnly])
def point(name: ModelName, alias: Alias, pointed: Pointed, services: ServicesDep) -> Model:
    """Make an alias, or move it: forwards to a new version, or back. A repeat changes nothing.

    `latest` stands for the newest version unless it was moved; the next version that is registered moves it on.
    """
    services.models.point(name, alias, pointed.version)
    return services.models.get(name, pointed.version)


@router.delete("/models/{name}/aliases/{alias}", summary="Forget an alias", status_code=204)
def forget(name: ModelName, alias: Alias, services: ServicesDep) -> None:
    """Forget an alias; `latest` then stands for the newest version again. A repeat changes nothing."""
    services.models.point(name, alias, None)
