"""The service's parts that routes use, made once for each process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from api.live import Live
from api.mailbox import Mailbox
from api.merged import Merged
from api.tally import Tally
from service.adaptations import AdaptationQueue
from service.audit import AuditLog
from service.auth import KeyRing
from service.connection import Connections
from service.events import EventLog
from service.fleet import Fleet
from service.jobs import JobStore
from service.limits import BYTES, REQUESTS, ROWS, Limiter, resolved
from service.logs import LogStore
from service.models import ModelStore
from service.settings import Settings
from service.sweeps import SweepStore
from service.tenancy import Caller
from service.usage import Usage
from service.webhooks import WebhookStore
from warploom.errors import TooLarge

Call = Literal["adapt_calls", "predict_calls"]


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
    logs: LogStore
    webhooks: WebhookStore
    live: Live = field(repr=False)
    mailbox: Mailbox = field(repr=False)
    lookups: Merged = field(default_factory=Merged, repr=False)
    tally: Tally = field(default_factory=Tally, repr=False)

    @classmethod
    def over(cls, settings: Settings, connections: Connections) -> Services:
        """The services over these connections."""
        return cls(
            settings=settings,
            connections=connections,
            jobs=JobStore(connections),
            events=EventLog(connections),
            models=ModelStore(connections),
            sweeps=SweepStore(connections),
            queue=AdaptationQueue(connections, ttl_s=settings.adaptation_ttl_s, most_waiting=settings.adapt_queue),
            keys=KeyRing(connections),
            limits=Limiter(connections),
            usage=Usage(connections),
            audit=AuditLog(connections),
            fleet=Fleet(connections),
            logs=LogStore(connections),
            webhooks=WebhookStore(connections, allowed=settings.allowed_hosts),
            live=Live(settings.state_url, settings.replay_url),
            mailbox=Mailbox(settings.replay_url),
        )

    def of(self, caller: Caller) -> Services:
        """The services as one caller sees them: its tenant's objects and no others."""
        connections = self.connections
        return replace(
            self,
            jobs=JobStore(connections, caller=caller),
            events=EventLog(connections, caller=caller),
            models=ModelStore(connections, caller=caller),
            sweeps=SweepStore(connections, caller=caller),
            queue=AdaptationQueue(
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

    def admit(self, token: str, body_bytes: int) -> Caller:
        """Who sends this request, once it is counted.

        Args:
            token: the API key.
            body_bytes: length of the body as far as it is stated.

        Raises:
            Unauthenticated: no such key.
            RateLimited, TooLarge: the key's limits are used up.
        """
        caller = resolved(self.settings, self.keys.identify(token))
        if body_bytes > caller.limits["body_bytes"]:
            rule = f"at most {caller.limits['body_bytes']} bytes"
            raise TooLarge(f"the body is too large: {rule} are accepted", field="", rule=rule, value=body_bytes)
        Limiter(self.connections, caller).take(**{REQUESTS: 1, BYTES: body_bytes})
        self.usage.add(caller.key, requests=1, bytes=body_bytes)
        return caller

    def charge(self, caller: Caller, body_bytes: int) -> None:
        """Count a body whose length was not stated. Raises as `admit` does."""
        Limiter(self.connections, caller).take(**{BYTES: body_bytes})
        self.usage.add(caller.key, bytes=body_bytes)

    async def spend(self, call: Call, rows: int) -> None:
        """Count an adaptation or a prediction of so many rows. Raises RateLimited, TooLarge."""
        await self.tally.take(self.limits.key, rows, lambda amount: self.limits.take(**{ROWS: amount}))
        if self.caller is not None:
            self.usage.add(self.caller.key, **{call: 1, "rows": rows})
