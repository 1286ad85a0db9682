"""Trained models and their weights."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.deps import LISTED, JsonOnly, ModelName, Notes, ServicesDep, Version, WantedModels
from warploom.records import Model, Page

router = APIRouter(tags=["models"])
BYTES = "application/octet-stream"


@router.get("/models", summary="List models", openapi_extra=LISTED)
def listing(services: ServicesDep, wanted: WantedModels) -> Page[Model]:
    """The latest version of every model, by name."""
    return services.models.list(wanted)


@router.get("/models/{name}", summary="Get a model")
def one(name: ModelName, services: ServicesDep, version: Version = None) -> Model:
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
    responses={200: {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}},
)
def weights(name: ModelName, services: ServicesDep, version: Version = None) -> Response:
    """The weights as a safetensors file."""
    model = services.models.get(name, version)
    headers = {
        "Content-Disposition": f'attachment; filename="{model.name}-{model.version}.safetensors"',
        "X-Content-SHA256": model.sha256,
        "ETag": f'"{model.sha256}"',
    }
    return Response(services.models.blob(model.name, model.version), media_type=BYTES, headers=headers)
