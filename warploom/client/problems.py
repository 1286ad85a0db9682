"""Problem documents as errors of `warploom.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from warploom.errors import Unauthenticated, WarploomError


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer itself when it is a success, else the error that its problem document describes."""
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    error = error_of(problem if isinstance(problem, dict) else {}, answer.status_code)
    error.request_id = error.request_id or answer.headers.get("X-Request-ID")
    raise error


def error_of(problem: dict[str, Any], status: int) -> WarploomError:
    """The error that a problem document describes, with field, rule and value of its first complaint.

    A code that this version does not know falls back to the HTTP status, then to `WarploomError`; the error's `code`
    and `status` are the service's own in any case.
    """
    errors = problem.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    message = str(problem.get("detail") or problem.get("title") or f"the service answered {status}")
    if isinstance(errors, list) and len(errors) > 1:
        message = "; ".join(map(_complaint, errors))
    kind = _kind(str(problem.get("code")), status)
    if kind is Unauthenticated and not problem:
        message = "the service refused the API key"
    error = kind(message, field=first.get("pointer"), rule=first.get("rule"), value=first.get("value"))
    error.said(status, problem.get("code"), problem.get("request_id"))
    return error


def _complaint(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    where, message = str(error.get("pointer") or ""), str(error.get("message", error))
    return message if not where or where in message else f"{where}: {message}"


def _kind(code: str, status: int) -> type[WarploomError]:
    kinds = list(_leaves(WarploomError))
    for kind in kinds:
        if kind.code == code:
            return kind
    for kind in kinds:
        if kind.status == status and status != 500:
            return kind
    return WarploomError


def _leaves(kind: type[WarploomError]) -> Iterator[type[WarploomError]]:
    # Parents first: of several classes with one status, the general one is meant.
    for child in kind.__subclasses__():
        yield child
    for child in kind.__subclasses__():
        yield from _leaves(child)
