"""What happens to every request before a route sees it: an id, a limit on the body, a key. Plain ASGI."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.metrics import Metrics, pattern
from service.identity import HEADER
from service.settings import Settings
from service.tenancy import Caller
from warploom.errors import BodyTimeout, TooLarge, Unauthenticated, WarploomError

log = logging.getLogger("api")
REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
PRIVATE = "/v1"
CLOSE = {"Connection": "close"}
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
UNAUDITED = ("/adapt", "/predict")
SLOWEST_BYTES_PER_S = 16 * 1024
CALLER = "warploom.caller"  # in the scope of a request that was let in


class RequestContext:
    """Gives each request an id, counts it, and answers 500 without a trace when all else failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["warploom.request_id"] = given if REQUEST_ID.match(given) else f"req_{uuid.uuid4().hex}"
        begin, started = time.perf_counter(), False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = scope["warploom.request_id"]
                headers.setdefault("X-Content-Type-Options", "nosniff")
                self.metrics.observe(scope, message["status"], time.perf_counter() - begin)
            await send(message)

        try:
            await self.app(scope, receive, tagged)
        except Exception as error:
            answer = errors.unexpected(scope, error)
            if not started:
                await answer(scope, receive, tagged)


class BearerAuth:
    """Lets a request to the private part in only with an API key that may send it, and notes whose it is.

    Args:
        app: what comes next.
        admit: gives the caller for a key and the stated length of the body.
    """

    def __init__(self, app: ASGIApp, admit: Callable[[str, int], Awaitable[Caller]]) -> None:
        self.app = app
        self.admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PRIVATE or path.startswith(PRIVATE + "/")):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            scope[CALLER] = await self._admit(headers.get("authorization", ""), stated_length(headers) or 0)
        except WarploomError as error:
            await errors.response(scope, error, headers=_goodbye(headers))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _admit(self, header: str, body_bytes: int) -> Caller:
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            message = "an API key is needed: send it as 'Authorization: Bearer <key>'"
            raise Unauthenticated(message, field=HEADER, rule="Bearer <key>")
        return await self.admit(key.strip(), body_bytes)


class Audit:
    """Writes down every call that changes something, before its answer leaves.

    Args:
        app: what comes next.
        write: `AuditLog.append`; runs on a thread.
    """

    def __init__(self, app: ASGIApp, write: Callable[..., None]) -> None:
        self.app = app
        self.write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or CALLER not in scope or scope["method"] not in CHANGING:
            await self.app(scope, receive, send)
            return

        async def audited(message: Message) -> None:
            route = pattern(scope)
            if message["type"] == "http.response.start" and not route.endswith(UNAUDITED):
                await self._write(scope, route, message)
            await send(message)

        await self.app(scope, receive, audited)

    async def _write(self, scope: Scope, route: str, message: Message) -> None:
        made = Headers(raw=message["headers"]).get("location", "").rpartition("/")[2]
        entry = {
            "action": f"{scope['method']} {route}",
            "target": made or " ".join(map(str, scope.get("path_params", {}).values())),
            "status": message["status"],
            "request_id": scope["warploom.request_id"],
            "address": (scope.get("client") or ("",))[0],
        }
        try:
            await run_in_threadpool(partial(self.write, scope[CALLER], **entry))
        except WarploomError as error:
            log.error("not audited: %s", error.message, extra=entry)


class BodyGuard:
    """Reads along with a body, and refuses one that is too large, too slow or made to swell when it is parsed.

    Args:
        app: what comes next.
        settings: the limits; a caller's own come first.
        charge: counts a body whose length was not stated.
    """

    def __init__(self, app: ASGIApp, settings: Settings, charge: Callable[[Caller, int], Awaitable[None]]) -> None:
        self.app = app
        self.settings = settings
        self.charge = charge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, caller = Headers(scope=scope), scope.get(CALLER)
        most = caller.limits["body_bytes"] if caller else self.settings.max_body_bytes
        if (stated_length(headers) or 0) > most:
            error = _too_large(most, headers["content-length"][:20])
            await errors.response(scope, error, headers=CLOSE)(scope, receive, send)
            return
        body = _Body(
            receive, self.settings, most, is_json="application/json" in headers.get("content-type", "").lower()
        )
        if caller is not None and stated_length(headers) is None:
            body.charge = partial(self.charge, caller)
        await self.app(scope, body.receive, send)


class _Body:
    """One request's body as it comes."""

    def __init__(self, receive: Receive, settings: Settings, most: int, *, is_json: bool) -> None:
        self._receive, self._settings, self._most, self._is_json = receive, settings, most, is_json
        self._begun, self._seen, self._parts, self._complete = time.monotonic(), 0, 0, False
        self.charge: Callable[[int], Awaitable[None]] | None = None

    async def receive(self) -> Message:
        """The next piece."""
        if self._complete:  # what is awaited now is the caller's going away
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._left_s())
        except TimeoutError:
            rule = f"a body within {self._settings.body_wait_s:g} s, and one more for each {SLOWEST_BYTES_PER_S} bytes"
            slow = BodyTimeout(f"the body comes too slowly; the rule is {rule}", field="", rule=rule, value=self._seen)
            raise errors.Refused(slow, CLOSE) from None
        if message["type"] == "http.request":
            await self._note(message.get("body", b""), message.get("more_body", False))
        return message

    def _left_s(self) -> float:
        allowed = self._settings.body_wait_s + self._seen / SLOWEST_BYTES_PER_S
        return max(self._begun + allowed - time.monotonic(), 0.001)

    async def _note(self, piece: bytes, more: bool) -> None:
        self._seen += len(piece)
        if self._seen > self._most:
            raise errors.Refused(_too_large(self._most, self._seen), CLOSE)
        if self._is_json:
            self._parts += piece.count(b"[") + piece.count(b"{")
            if self._parts > self._settings.max_json_parts:
                rule = f"at most {self._settings.max_json_parts} arrays and objects"
                swelling = f"the JSON body is too large: {rule} are accepted"
                raise errors.Refused(TooLarge(swelling, field="", rule=rule, value=self._parts), CLOSE)
        self._complete = not more
        if self._complete and self._seen and self.charge is not None:
            try:
                await self.charge(self._seen)
            except WarploomError as error:
                raise errors.Refused(error) from None


def stated_length(headers: Headers) -> int | None:
    """The body's length as stated, as far as it is a number; one with more than 15 digits stands for any that large."""
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdecimal()):
        return None
    return int(text) if len(text) <= 15 else 10**15


def _too_large(most: int, value: object) -> TooLarge:
    rule = f"at most {most} bytes"
    return TooLarge(f"the body is too large: {rule} are accepted", field="", rule=rule, value=value)


def _goodbye(headers: Headers) -> Mapping[str, str]:
    # A body that nobody will read must not keep the connection busy.
    return CLOSE if stated_length(headers) or "transfer-encoding" in headers else {}
