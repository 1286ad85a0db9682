"""The service's parts that routes use, made once for each process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from api.live import Live
from api.mailbox import Mailbox
from api.mailboxes import mailbox_on
from service.adaptations import AdaptationQueue
from service.audit import AuditLog
from service.auth import KeyRing
from service.connection import Connections
from service.counters import Counters
from service.events import EventLog
from service.fleet import Fleet
from service.identity import identified
from service.jobs import JobStore
from service.limits import BYTES, REQUESTS, ROWS, Limiter, resolved
from service.logs import LogStore
from service.models import ModelStore
from service.settings import Settings
from service.sharded_adaptations import queue_on
from service.sharded_trips import trips_on
from service.sweeps import SweepStore
from service.tenancy import Caller
from service.trips import Trips
from service.usage import Usage
from service.webhooks import WebhookStore
from warploom.errors import TooLarge

Call = Literal["adapt_calls", "predict_calls"]
# Callers whose view of the services is kept.
MOST_VIEWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All stores over one pair of connections, and the asynchronous readers for long waits."""

    settings: Settings
    connections: Connections
    jobs: JobStore
    events: EventLog
    models: ModelStore
    sweeps: SweepStore
    queue: AdaptationQueue
    keys: KeyRing
    limits: Limiter
    usage: Usage
    audit: AuditLog
    caller: Caller | None = None
    fleet: Fleet
    counters: Counters
    logs: LogStore
    webhooks: WebhookStore
    live: Live = field(repr=False)
    mailbox: Mailbox = field(repr=False)
    state: Trips = field(repr=False)
    replay: Trips = field(repr=False)
    views: dict[Caller, Services] = field(default_factory=dict, repr=False)

    @classmethod
    def over(cls, settings: Settings, connections: Connections) -> Services:
        """The services over these connections."""
        replay = trips_on("replay", settings.replay_urls)
        return cls(
            settings=settings,
            connections=connections,
            jobs=JobStore(connections),
            events=EventLog(connections),
            models=ModelStore(connections),
            sweeps=SweepStore(connections),
            queue=queue_on(connections, ttl_s=settings.adaptation_ttl_s, most_waiting=settings.adapt_queue),
            keys=KeyRing(connections),
            limits=Limiter(connections),
            usage=Usage(connections),
            audit=AuditLog(connections),
            fleet=Fleet(connections),
            counters=Counters(connections),
            logs=LogStore(connections),
            webhooks=WebhookStore(connections, allowed=settings.allowed_hosts),
            live=Live(settings.state_url, settings.replay_urls, replay),
            mailbox=mailbox_on(settings.replay_urls, replay),
            state=Trips("state", settings.state_url),
            replay=replay,
        )

    def open(self) -> None:
        """Start the asynchronous parts; within the running event loop."""
        for part in (self.state, self.replay, self.live, self.mailbox):
            part.open()

    async def close(self) -> None:
        """End them."""
        for part in (self.mailbox, self.live, self.state, self.replay):
            await part.close()

    def of(self, caller: Caller) -> Services:
        """The services as one caller sees them: its tenant's objects and no others."""
        found = self.views.get(caller)
        if found is None:
            if len(self.views) >= MOST_VIEWS:
                self.views.clear()
            found = self.views[caller] = self._of(caller)
        return found

    def _of(self, caller: Caller) -> Services:
        connections = self.connections
        return replace(
            self,
            jobs=JobStore(connections, caller=caller),
            events=EventLog(connections, caller=caller),
            models=ModelStore(connections, caller=caller),
            sweeps=SweepStore(connections, caller=caller),
            queue=queue_on(
                connections,
                ttl_s=self.settings.adaptation_ttl_s,
                most_waiting=self.settings.adapt_queue,
                caller=caller,
            ),
            keys=KeyRing(connections, caller=caller),
            webhooks=WebhookStore(connections, allowed=self.settings.allowed_hosts, caller=caller),
            limits=Limiter(connections, caller),
            audit=AuditLog(connections, caller=caller),
            caller=caller,
        )

    async def admit(self, token: str, body_bytes: int) -> Caller:
        """Who sends this request, once it is counted.

        Args:
            token: the API key; looked up each time, so that one that was revoked opens nothing from then on.
            body_bytes: length of the body as far as it is stated.

        Raises:
            Unauthenticated: no such key.
            RateLimited, TooLarge: the key's limits are used up.
        """
        caller = resolved(self.settings, await identified(token, self.state))
        if body_bytes > caller.limits["body_bytes"]:
            rule = f"at most {caller.limits['body_bytes']} bytes"
            raise TooLarge(f"the body is too large: {rule} are accepted", field="", rule=rule, value=body_bytes)
        await Limiter(self.connections, caller).taken(self.replay, **{REQUESTS: 1, BYTES: body_bytes})
        self.usage.add(caller.key, requests=1, bytes=body_bytes)
        return caller

    async def charge(self, caller: Caller, body_bytes: int) -> None:
        """Count a body whose length was not stated. Raises as `admit` does."""
        await Limiter(self.connections, caller).taken(self.replay, **{BYTES: body_bytes})
        self.usage.add(caller.key, bytes=body_bytes)

    async def spend(self, call: Call, rows: int) -> None:
        """Count an adaptation or a prediction of so many rows. Raises RateLimited, TooLarge."""
        await self.limits.taken(self.replay, **{ROWS: rows})
        if self.caller is not None:
            self.usage.add(self.caller.key, **{call: 1, "rows": rows})
