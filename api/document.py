"""The OpenAPI document, completed: every refusal that a call may meet, and the scope that it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI

from api.deps import Access
from api.middleware import PRIVATE

METHODS = ("get", "put", "post", "patch", "delete")
PROBLEM = "application/problem+json"

_TEXT = {"type": "string"}
_COMPLAINT = {
    "type": "object",
    "title": "Complaint",
    "required": ["pointer", "rule", "value", "message"],
    "properties": {
        "pointer": {
            **_TEXT,
            "description": "JSON pointer into the body (empty: all of it), or `/` and the name of a parameter",
        },
        "rule": _TEXT,
        "value": {"description": "short form of the value"},
        "message": _TEXT,
    },
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "code", "detail", "errors", "request_id"],
    "properties": {
        **dict.fromkeys(("type", "title", "code", "detail", "request_id"), _TEXT),
        "status": {"type": "integer"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Complaint"}},
    },
}
ALWAYS = {
    400: "Not a request that can be read",
    401: "No API key, or one that is unknown, revoked or expired",
    403: "The key lacks the scope",
    404: "No such object, or another tenant's",
    405: "The path has no such method; `Allow` names those that it has",
    422: "A value breaks a rule; `errors` names every field",
    429: "A limit of the key is used up; `Retry-After` says for how many seconds",
    500: "A fault of the service; `request_id` finds it in the log",
    503: "A part of the service is down or busy; `Retry-After` says for how many seconds",
}
WITH_BODY = {
    408: "The body came too slowly",
    413: "The body, or what it asks for, is too large",
    415: "The body's media type is not read here",
}
CHANGES = {
    409: "The object's state does not allow this",
    424: "A data set's files are missing",
    504: "No answer in time",
}


def complete(app: FastAPI, routers: Sequence[tuple[APIRouter, Access]]) -> None:
    """Have `app.openapi()` say all of it.

    Args:
        app: with all its routes.
        routers: those under the private prefix, and who may use them.
    """
    scopes = {
        (PRIVATE + getattr(route, "path", ""), method.lower()): access.needed(method)
        for router, access in routers
        for route in router.routes
        for method in getattr(route, "methods", ())
    }
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain(), scopes)
        return plain()

    app.openapi = whole  # type: ignore[method-assign]


def _complete(document: dict[str, Any], scopes: dict[tuple[str, str], tuple[str, ...]]) -> None:
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    schemas |= {"Problem": _PROBLEM, "Complaint": _COMPLAINT}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    parts["responses"] = {
        f"Problem{status}": _response(text) for status, text in (ALWAYS | WITH_BODY | CHANGES).items()
    }
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item and path.startswith(PRIVATE):
                _complete_call(item[method], method, scopes.get((path, method), ()))


def _response(text: str) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def _complete_call(call: dict[str, Any], method: str, needed: tuple[str, ...]) -> None:
    may = ALWAYS | (CHANGES if method != "get" else {}) | (WITH_BODY if "requestBody" in call else {})
    for status in may:
        call["responses"][str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    if needed:
        call["description"] = f"{call.get('description', '').rstrip()}\n\nScope: `{'` or `'.join(needed)}`.".strip()


def allowed(app: FastAPI, path: str) -> str:
    """The methods of a path, for the header `Allow`; the router names those of its first match alone."""
    found = {
        method.upper()
        for pattern, item in app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern)), path)
        for method in item
        if method in METHODS
    }
    return ", ".join(sorted(found))
