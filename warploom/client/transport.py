"""HTTP with the service's manners: bearer key, problem documents as errors, retries where a repeat is harmless."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from warploom import __version__
from warploom.client.endpoint import Endpoint
from warploom.errors import Unauthenticated, Unavailable, WarploomError

IDEMPOTENCY_KEY = "Idempotency-Key"
ATTEMPTS = 4
LONGEST_PAUSE_S = 5.0


class Transport:
    """One service over HTTP.

    Args:
        endpoint: address and key.
        timeout_s: longest wait for an answer.
        http: transport of httpx to use instead of the network (tests).
        sleep: how to pause between two attempts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout_s: float,
        http: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"User-Agent": f"warploom/{__version__}"}
        if endpoint.api_key:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        self.endpoint = endpoint
        self.pause = sleep
        self.http = httpx.Client(base_url=endpoint.url, headers=headers, timeout=timeout_s, transport=http)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to one request.

        A GET, and what carries an idempotency key, is repeated when the connection fails or the service says 503;
        anything else only when the connection could not be made at all, because then it was not carried out.

        Raises:
            WarploomError: the subclass that the problem document names.
            Unavailable: the service cannot be reached.
        """
        safe = method == "GET" or IDEMPOTENCY_KEY in options.get("headers", {})
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = self.http.request(method, path, **options)
            except httpx.TransportError as error:
                if last or not (safe or isinstance(error, httpx.ConnectError)):
                    raise self.unreachable(error) from error
                self.pause(backoff(attempt))
                continue
            if answer.status_code == 503 and safe and not last:
                self.pause(_retry_after(answer) or backoff(attempt))
                continue
            return checked(answer)
        raise AssertionError("the last attempt returns or raises")

    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """One open answer whose body is read as it comes (a generator with a single value)."""
        with self.http.stream("GET", path, **options) as answer:
            if not answer.is_success:
                answer.read()
            yield checked(answer)

    def unreachable(self, error: Exception) -> Unavailable:
        """The error to raise when there is no answer."""
        what = str(error) or type(error).__name__
        return Unavailable(
            f"cannot reach the service at {self.endpoint.url}: {what}. Is it running (`warploom up`)? "
            "WARPLOOM_URL says where it is."
        )


def backoff(attempt: int) -> float:
    """Seconds to pause after the attempt of this number (0, 1, 2…)."""
    return float(min(0.2 * 2**attempt, LONGEST_PAUSE_S))


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        return min(max(float(answer.headers["Retry-After"]), 0.0), LONGEST_PAUSE_S)
    except (KeyError, ValueError):
        return None


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer itself when it is a success, else the error that its problem document describes."""
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    raise error_of(problem if isinstance(problem, dict) else {}, answer.status_code)


def error_of(problem: dict[str, Any], status: int) -> WarploomError:
    """The error that a problem document describes, with field, rule and value of its first complaint.

    A code that this version does not know falls back to the HTTP status, then to `WarploomError`.
    """
    errors = problem.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    message = str(problem.get("detail") or problem.get("title") or f"the service answered {status}")
    if isinstance(errors, list) and len(errors) > 1:
        message = "; ".join(str(e.get("message", e)) if isinstance(e, dict) else str(e) for e in errors)
    kind = _kind(str(problem.get("code")), status)
    if kind is Unauthenticated and not problem:
        message = "the service refused the API key"
    return kind(message, field=first.get("pointer"), rule=first.get("rule"), value=first.get("value"))


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
