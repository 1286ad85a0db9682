"""Whether the service lives, whether it can work, what it is, and its numbers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api import errors
from api.deps import ServicesDep
from api.state import Services
from service.connection import RoleClient, answers
from warploom import __version__
from warploom.errors import Unavailable, WarploomError

router = APIRouter(tags=["health"])


@router.get("/livez")
def livez() -> dict[str, str]:
    """This process answers."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"content": {"application/problem+json": {"schema": {"type": "object"}}}}})
def readyz(request: Request, services: ServicesDep) -> Response:
    """All parts that are needed are up; else 503, and the document names those that are down."""
    parts = _parts(services)
    down = [name for name, value in parts.items() if value in ("down", 0)]
    if services.settings.adapters == 0 and "adapters" in down:
        down.remove("adapters")
    if down:
        error = Unavailable(f"down: {', '.join(down)}")
        return errors.response(request.scope, error, members={"down": down, "parts": parts})
    return JSONResponse({"status": "ready", "parts": parts})


def _parts(services: Services) -> dict[str, Any]:
    replays = [_ping(client) for client in services.connections.shards]
    parts: dict[str, Any] = {
        "state_redis": _ping(services.connections.state),
        "replay_redis": "up" if "up" in replays else "down",
    }
    if len(replays) > 1:  # one is enough
        parts["replay_shards"] = replays
    try:
        alive = services.fleet.alive()
    except WarploomError:
        alive = {}
    return parts | {"supervisor": alive.get("supervisor", 0), "adapters": alive.get("adapter", 0)}


def _ping(client: RoleClient) -> str:
    return "up" if answers(client) else "down"


@router.get("/version")
def version() -> dict[str, str]:
    """The version of this service."""
    return {"version": __version__}


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
