"""Few-shot adaptation: a support set in, predictions out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from api import adapting
from api.adapting import Found
from api.asking import Manner
from api.deps import JSON, Id, ModelRef, Once, ServicesDep
from api.live import HEARTBEAT_S
from api.payload import NPZ, AdaptBody, AdaptInput, Options, PredictBody, adapt_input, predict_input
from api.pictures import CLASS, MULTIPART, QUERY
from api.state import Services
from warploom.errors import TimedOut, WarploomError
from warploom.records import Adaptation, PendingAdaptation, Prediction, Record

router = APIRouter(tags=["adaptation"])
BYTES = "application/octet-stream"
STREAM = "text/event-stream"


def _documented(kind: type[BaseModel], form: dict[str, Any], *, options: bool = False) -> dict[str, Any]:
    # The bodies are read by hand (several media types), so their description is written by hand too.
    binary: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    content = {JSON: {"schema": _inlined(kind)}, **dict.fromkeys(NPZ, binary), MULTIPART: {"schema": form}}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if options:
        fields = Options.model_json_schema()["properties"]
        extra["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": "with npz bodies"}
            for name, schema in fields.items()
        ]
    return extra


_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
_QUERIES: dict[str, Any] = {
    "type": "object",
    "properties": {QUERY: _FILES},
    "required": [QUERY],
    "additionalProperties": False,
}


def _form() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {QUERY: _FILES, **Options.model_json_schema()["properties"]},
        "patternProperties": {f"^{CLASS.pattern}$": _FILES},
        "additionalProperties": False,
    }


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


class AdaptationList(Record):
    """The adaptations of one call, in the order of its tasks."""

    data: list[Adaptation | PendingAdaptation]


LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": PendingAdaptation, "description": "It takes longer; ask for it again under its id"}
}
Timeout = Annotated[
    float | None,
    Header(
        alias="X-Request-Timeout",
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="seconds that you will wait; what is not begun by then is not computed, and the answer is 504",
    ),
]
Prefer = Annotated[
    str | None, Header(max_length=200, description="`respond-async`: answer 202 at once, and let me come back")
]


async def _manner(timeout: Timeout = None, prefer: Prefer = None, once: Once = None) -> Manner:
    later = "respond-async" in {wish.strip().lower() for wish in (prefer or "").split(",")}
    return Manner(timeout, later, once)


MannerDep = Annotated[Manner, Depends(_manner)]


def _said(found: Found) -> Response:
    if isinstance(found, Adaptation):
        return Response(found.model_dump_json(), media_type=JSON)
    return _come_back(found.model_dump_json(), found, {"Location": f"/v1/adaptations/{found.id}"})


def _come_back(body: str, pending: PendingAdaptation, headers: Mapping[str, str] | None = None) -> Response:
    wait = {"Retry-After": str(math.ceil(pending.retry_in_seconds))}
    return Response(body, 202, media_type=JSON, headers={**wait, **(headers or {})})


@router.post(
    "/models/{name}/adapt",
    summary="Adapt a model to a task",
    response_model=Adaptation | AdaptationList,
    responses={202: {**LATER[202], "model": PendingAdaptation | AdaptationList}},
    openapi_extra=_documented(AdaptBody, _form(), options=True),
)
async def adapt(name: ModelRef, request: Request, services: ServicesDep, manner: MannerDep) -> Response:
    """Adapt a model to one task, or to each of several `tasks`, and predict the queries.

    JSON; an npz file with arrays `support_x`, `support_y` and perhaps `query_x`, with the options as query parameters;
    or a form with PNG or JPEG files in `support[<class number>]` and `query`, and the options as fields. Work that is
    large, or that the adapters do not come to soon, is answered with 202: ask for it, or stream it, under its id.
    Several tasks are all checked before any is begun.
    """
    given = await adapt_input(request, services.settings.max_body_bytes)
    if isinstance(given, AdaptInput):
        return _said(await adapting.adapt(services, name, given, manner))
    found = await adapting.adapt_many(services, name, given, manner)
    body = AdaptationList(data=found).model_dump_json()
    pending = [one for one in found if isinstance(one, PendingAdaptation)]
    return _come_back(body, pending[0]) if pending else Response(body, media_type=JSON)


@router.get(
    "/adaptations/{adaptation_id}",
    summary="Get an adaptation",
    response_model=Adaptation,
    responses={**LATER, 200: {"content": {STREAM: {"schema": {"type": "string"}}}}},
)
async def one(adaptation_id: Id, request: Request, services: ServicesDep) -> Response:
    """An adaptation that is still kept, or 202 while it is being made.

    With `Accept: text/event-stream` the answer comes as one event `adaptation`, or `error` with its problem document,
    as soon as it is there.
    """
    found = await run_in_threadpool(adapting.look, services, adaptation_id)
    if STREAM not in request.headers.get("accept", ""):
        return _said(found)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_frames(services, adaptation_id, found), media_type=STREAM, headers=headers)


async def _frames(services: Services, adaptation_id: str, found: Found) -> AsyncIterator[str]:
    try:
        while isinstance(found, PendingAdaptation):
            yield ": waiting\n\n"
            with suppress(TimedOut):
                # Whatever it says, also a failure, is read below as for any other caller.
                await services.live.answered(adaptation_id, HEARTBEAT_S)
            found = await run_in_threadpool(adapting.look, services, adaptation_id)
        yield f"event: adaptation\ndata: {found.model_dump_json()}\n\n"
    except WarploomError as error:
        yield f"event: error\ndata: {json.dumps(error.as_problem(), default=str)}\n\n"


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
    blob = services.queue.kept.get(adaptation_id)[1]
    headers = {
        "Content-Disposition": f'attachment; filename="{adaptation_id}.safetensors"',
        "X-Content-SHA256": hashlib.sha256(blob).hexdigest(),
    }
    return Response(blob, media_type=BYTES, headers=headers)


@router.delete("/adaptations/{adaptation_id}", summary="Forget an adaptation", status_code=204)
def forget(adaptation_id: Id, services: ServicesDep) -> None:
    """Drop adapted parameters before they expire. A repeat changes nothing."""
    services.queue.kept.forget(adaptation_id)


@router.post(
    "/adaptations/{adaptation_id}/predict",
    summary="Predict with an adapted model",
    openapi_extra=_documented(PredictBody, _QUERIES),
)
async def predict(adaptation_id: Id, request: Request, services: ServicesDep) -> Prediction:
    """Predict more queries with a model that was adapted before; pictures are files in fields named `query`."""
    query = await predict_input(request, services.settings.max_body_bytes)
    return await adapting.predict(services, adaptation_id, query)
