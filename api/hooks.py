"""Delivers messages to webhooks, in the background of every API process; a lease keeps two from sending the same."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid

import httpx
from starlette.concurrency import run_in_threadpool

from service.webhooks import Message, WebhookStore, check_hook_url, signature
from warploom import __version__
from warploom.addresses import AsyncGuardedTransport
from warploom.errors import InvalidInput, WarploomError
from warploom.records import Attempt

LOOK_S = 1.0
WAIT_S = 10.0
log = logging.getLogger("api.hooks")


class Dispatcher:
    """Looks for jobs that ended and messages that are due.

    Args:
        store: webhooks of all tenants.
        allowed: hosts that need not be public.
    """

    def __init__(self, store: WebhookStore, allowed: frozenset[str]) -> None:
        self._store, self._allowed = store, allowed
        self._name = uuid.uuid4().hex
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; within the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; what was being sent is sent again when its lease is over."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def once(self, client: httpx.AsyncClient) -> int:
        """Send all that is due now; how many messages."""
        await run_in_threadpool(self._store.collect, self._name)
        messages = await run_in_threadpool(self._store.due)
        await asyncio.gather(*(self._send(client, message) for message in messages))
        return len(messages)

    async def _run(self) -> None:
        transport = AsyncGuardedTransport(allowed=self._allowed, schemes=("https", "http"))
        async with httpx.AsyncClient(transport=transport, timeout=WAIT_S, follow_redirects=False) as client:
            while True:
                try:
                    if await self.once(client):
                        continue
                except WarploomError as error:
                    log.warning("webhooks wait: %s", error.message)
                except Exception:
                    log.exception("webhooks stumbled")
                await asyncio.sleep(LOOK_S)

    async def _send(self, client: httpx.AsyncClient, message: Message) -> None:
        begin, clock = time.time(), time.monotonic()
        status, trouble = None, None
        try:
            status = await asyncio.wait_for(self._post(client, message), WAIT_S)
        except (httpx.HTTPError, InvalidInput, TimeoutError) as error:
            trouble = f"{type(error).__name__}: {error}"[:300]
        attempt = Attempt(at=begin, seconds=time.monotonic() - clock, status=status, error=trouble)
        await run_in_threadpool(self._store.settle, message, attempt)

    async def _post(self, client: httpx.AsyncClient, message: Message) -> int:
        if message.hook is None:
            raise InvalidInput("the webhook was deleted")
        await run_in_threadpool(check_hook_url, message.hook.url, self._allowed)
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"warploom/{__version__}",
            "webhook-id": message.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(message.secrets, message.id, now, message.body),
        }
        # The answer's body is nobody's business, and may be endless.
        async with client.stream("POST", message.hook.url, content=message.body.encode(), headers=headers) as answer:
            return answer.status_code
