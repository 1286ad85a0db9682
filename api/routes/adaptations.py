"""Few-shot adaptation: a support set in, predictions out."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api import adapting
from api.deps import JSON, Id, ModelRef, ServicesDep
from api.payload import NPZ, AdaptBody, Options, PredictBody, adapt_input, predict_input
from warploom.records import Adaptation, Prediction

router = APIRouter(tags=["adaptation"])
BYTES = "application/octet-stream"


def _documented(kind: type[BaseModel], *, options: bool = False) -> dict[str, Any]:
    # The bodies are read by hand (two media types), so their description is written by hand too.
    binary: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    content = {JSON: {"schema": _inlined(kind)}, **dict.fromkeys(NPZ, binary)}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if options:
        fields = Options.model_json_schema()["properties"]
        extra["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": "with npz bodies"}
            for name, schema in fields.items()
        ]
    return extra


def _inlined(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(parts[node["$ref"].rpartition("/")[2]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


@router.post(
    "/models/{name}/adapt", summary="Adapt a model to a task", openapi_extra=_documented(AdaptBody, options=True)
)
async def adapt(name: ModelRef, request: Request, services: ServicesDep) -> Adaptation:
    """Adapt a model to one task and predict its queries.

    JSON, or an npz file with arrays `support_x`, `support_y` and perhaps `query_x`; with npz the options are query
    parameters.
    """
    given = await adapt_input(request, services.settings.max_body_bytes)
    return await adapting.adapt(services, name, given)


@router.get("/adaptations/{adaptation_id}", summary="Get an adaptation")
def one(adaptation_id: Id, services: ServicesDep) -> Adaptation:
    """An adaptation that is still kept."""
    return Adaptation.model_validate(services.queue.kept(adaptation_id)[0])


@router.get(
    "/adaptations/{adaptation_id}/weights",
    summary="Download adapted weights",
    response_class=Response,
    responses={200: {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}},
)
def weights(adaptation_id: Id, services: ServicesDep) -> Response:
    """The adapted parameters as a safetensors file: `p/<name>`, and `s/<name>` for the statistics that normalise.

    What adaptation leaves alone is in the model's own weights.
    """
    blob = services.queue.kept(adaptation_id)[1]
    headers = {
        "Content-Disposition": f'attachment; filename="{adaptation_id}.safetensors"',
        "X-Content-SHA256": hashlib.sha256(blob).hexdigest(),
    }
    return Response(blob, media_type=BYTES, headers=headers)


@router.delete("/adaptations/{adaptation_id}", summary="Forget an adaptation", status_code=204)
def forget(adaptation_id: Id, services: ServicesDep) -> None:
    """Drop adapted parameters before they expire. A repeat changes nothing."""
    services.queue.forget(adaptation_id)


@router.post(
    "/adaptations/{adaptation_id}/predict",
    summary="Predict with an adapted model",
    openapi_extra=_documented(PredictBody),
)
async def predict(adaptation_id: Id, request: Request, services: ServicesDep) -> Prediction:
    """Predict more queries with a model that was adapted before."""
    query = await predict_input(request, services.settings.max_body_bytes)
    return await adapting.predict(services, adaptation_id, query)
