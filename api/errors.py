"""Every refusal as an RFC 9457 problem document: what is wrong, where, by which rule, with which value."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from warploom.errors import InvalidInput, RateLimited, Unauthenticated, UnfitPair, WarploomError
from warploom.spec import location, pointer

LONGEST_TEXT = 300
MOST_ERRORS = 50
NAMED = frozenset({400, 408, 409, 413, 415, 422})  # `errors` says what is wrong; where nothing smaller is, the body
CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
    429: "rate_limited",
    503: "unavailable",
}

log = logging.getLogger("api")


class UnsupportedMediaType(WarploomError):
    """A body of a type that this route does not read."""

    status, code = 415, "unsupported_media_type"


class InvalidFields(InvalidInput):
    """Several fields break their rules."""

    def __init__(self, errors: Sequence[dict[str, Any]], *, code: str) -> None:
        super().__init__("; ".join(f"{e['pointer'] or 'body'}: {e['message']}" for e in errors[:3]))
        self.errors = errors
        self.shown_code = code


class Refused(HTTPException):
    """One of our errors, raised where only HTTPException passes unchanged: while the framework reads a body."""

    def __init__(self, error: WarploomError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.status, error.message, headers)
        self.error = error


def of_pydantic(details: Iterable[Mapping[str, Any]]) -> InvalidFields:
    """All complaints of pydantic as one error of ours."""
    errors = [_complaint(detail) for detail in details]
    unfit = any(error["rule"] == UnfitPair.code for error in errors)
    return InvalidFields(errors, code=UnfitPair.code if unfit else InvalidInput.code)


def _complaint(detail: Mapping[str, Any]) -> dict[str, Any]:
    at = location(detail)
    if at and at[0] in {"body", "query", "path", "header"}:
        at = at[1:]
    message = str(detail["msg"]).removeprefix("Value error, ")
    kind = str(detail["type"])
    if kind == "json_invalid":
        reason = (detail.get("ctx") or {}).get("error", message)
        return {"pointer": "", "rule": "valid JSON", "value": None, "message": f"not valid JSON: {reason}"}
    value = None if kind == "missing" else detail.get("input")
    return {"pointer": pointer(at), "rule": kind, "value": value, "message": message}


def response(
    scope: Scope,
    error: WarploomError,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """The answer that says `error`; `members` are added to its document."""
    problem = error.as_problem()
    if isinstance(error, InvalidFields):
        problem |= {"code": error.shown_code, "errors": [dict(e) for e in error.errors[:MOST_ERRORS]]}
    problem["detail"] = clipped(error.message)
    if error.status in NAMED and not problem.get("errors"):
        problem["errors"] = [{"pointer": "", "rule": error.rule, "value": error.value, "message": error.message}]
    for entry in problem.setdefault("errors", []):
        entry |= {"pointer": clipped(_rooted(entry["pointer"] or "")), "value": tame(entry["value"])}
        entry |= {"rule": clipped(entry["rule"] or error.code), "message": clipped(entry["message"])}
    problem |= {"request_id": scope.get("warploom.request_id", ""), **(members or {})}
    extra = dict(headers or {})
    if isinstance(error, Unauthenticated):
        extra.setdefault("WWW-Authenticate", "Bearer")
    if isinstance(error, RateLimited):
        extra.update(retry_after(error))
    if error.status == 503:
        extra.setdefault("Retry-After", "1")
    return JSONResponse(problem, error.status, headers=extra, media_type="application/problem+json")


def _rooted(name: str) -> str:
    """The name of a parameter as a pointer to it; the empty pointer is the whole body."""
    return name if not name or name.startswith("/") else f"/{name}"


def retry_after(error: RateLimited) -> dict[str, str]:
    """The header that says when to try again."""
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}


def clipped(text: str) -> str:
    """The text, cut where it gets long: a refusal must not echo a huge body."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def tame(value: Any) -> Any:
    """The value as something short that JSON can say.

    Example:
        >>> tame(float("nan")), tame([1, 2, 3])
        ('nan', 'array of 3')
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 64 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return clipped(value)
    if isinstance(value, list | tuple):
        return f"array of {len(value)}"
    return "object" if isinstance(value, dict) else type(value).__name__


def _general(status: int, detail: str) -> WarploomError:
    error = WarploomError(detail, rule="a request that can be read" if status == 400 else None)
    error.status = status  # type: ignore[misc]
    error.code = CODES.get(status, "internal" if status >= 500 else "bad_request")  # type: ignore[misc]
    return error


def unexpected(scope: Scope, error: Exception) -> Response:
    """The answer to an error that nobody foresaw: the log gets the trace, the caller gets the request's id."""
    log.exception("request %s failed", scope.get("warploom.request_id"), exc_info=error)
    return response(scope, _general(500, "something went wrong here; the request id finds it in the log"))


def install(app: FastAPI, allowed: Callable[[FastAPI, str], str]) -> None:
    """Have `app` answer every kind of error as a problem document.

    Args:
        app: the application.
        allowed: the methods of a path.
    """

    @app.exception_handler(WarploomError)
    async def _ours(request: Request, error: WarploomError) -> Response:
        return response(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def _fields(request: Request, error: RequestValidationError) -> Response:
        return response(request.scope, of_pydantic(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Refused):
            return response(request.scope, error.error, headers=error.headers)
        detail = error.detail or HTTPStatus(error.status_code).phrase
        headers = dict(error.headers or {})
        if error.status_code == 405 and (methods := allowed(app, request.url.path)):
            headers = {name: value for name, value in headers.items() if name.lower() != "allow"} | {"Allow": methods}
        return response(request.scope, _general(error.status_code, detail), headers=headers)

    @app.exception_handler(RedisError)
    async def _redis(request: Request, error: RedisError) -> Response:
        log.warning("redis: %s", error)
        return response(request.scope, _general(503, "the service's database does not answer; try again"))
