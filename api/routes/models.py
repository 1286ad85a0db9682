"""Trained models and their weights."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.deps import ModelName, ServicesDep, Version
from warploom.records import Model, Page

router = APIRouter(tags=["models"])
BYTES = "application/octet-stream"


@router.get("/models", summary="List models")
def listing(services: ServicesDep) -> Page[Model]:
    """The latest version of every model."""
    return Page[Model](data=services.models.list())


@router.get("/models/{name}", summary="Get a model")
def one(name: ModelName, services: ServicesDep, version: Version = None) -> Model:
    """One model."""
    return services.models.get(name, version)


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
