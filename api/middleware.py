"""What happens to every request before a route sees it: an id, a limit on the body, a key. Plain ASGI."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.metrics import Metrics
from service.auth import HEADER
from service.tenancy import Caller
from warploom.errors import TooLarge, Unauthenticated, WarploomError

REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
PRIVATE = "/v1"
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


class BodyLimit:
    """Refuses a body over the limit, also one that comes without its length or with a false one."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdecimal() and (len(stated) > 15 or int(stated) > self.max_bytes):
            error = TooLarge(**self._facts(stated[:20]))
            await errors.response(scope, error, headers={"Connection": "close"})(scope, receive, send)
            return
        await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.max_bytes:
                    # Of all exceptions, only this one passes unchanged through the framework's reading of bodies.
                    raise HTTPException(413, self._facts(seen)["message"], headers={"Connection": "close"})
            return message

        return counted

    def _facts(self, value: object) -> dict[str, str]:
        rule = f"at most {self.max_bytes} bytes"
        message = f"the body is too large: {rule} are accepted"
        return {"message": message, "field": "", "rule": rule, "value": str(value)}


class BearerAuth:
    """Lets a request to the private part in only with an API key, and notes whose it is."""

    def __init__(self, app: ASGIApp, identify: Callable[[str], Caller]) -> None:
        self.app = app
        self.identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PRIVATE or path.startswith(PRIVATE + "/")):
            await self.app(scope, receive, send)
            return
        try:
            scope[CALLER] = await self._admit(Headers(scope=scope).get("authorization", ""))
        except WarploomError as error:
            await errors.response(scope, error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _admit(self, header: str) -> Caller:
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            message = "an API key is needed: send it as 'Authorization: Bearer <key>'"
            raise Unauthenticated(message, field=HEADER, rule="Bearer <key>")
        return await run_in_threadpool(self.identify, key.strip())
