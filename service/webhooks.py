"""Webhooks: who is told when a job ends, and the messages on their way, after Standard Webhooks.

A job's end is written into the stream `wl:ended` by the very script that ends it. Whoever delivers turns it into one
message for each webhook, with an id that follows from job, state and webhook, so that doing it twice makes nothing new.
"""

from __future__ import annotations

import base64
import builtins
import hashlib
import hmac
import json
import random
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from service import ids, keys
from service.connection import Connections
from service.jobs import JobStore
from service.lifecycle import Clock, Fields, as_fields, clock_arg, seconds
from service.scripts import Script
from service.tenancy import DEFAULT_TENANT, Caller
from warploom.addresses import check_url, parse_url
from warploom.errors import InvalidInput, NotFound, RateLimited
from warploom.records import Attempt, Delivery, Job, NewWebhook, Webhook

EVENTS = ("job.succeeded", "job.failed", "job.cancelled")
TEST = "webhook.test"
MOST_HOOKS = 20
KEPT = 200
LEASE_S = 60.0
LONGEST_GRACE_S = 30 * 86400
# Seconds after the first try, the second…; each up to a fifth longer, so that many do not come back together.
BACK_OFF_S = (5, 300, 1800, 7200, 18000, 36000, 36000)
GROUP = "webhooks"

_save = Script("hook_save")
_rotate = Script("hook_rotate")
_drop = Script("hook_drop")
_message = Script("hook_message")
_due = Script("hook_due")
_settle = Script("hook_settle")


class Message(NamedTuple):
    """A message that was taken to be sent: its id, the number of this try, what and where to, and what signs it."""

    id: str
    attempt: int
    body: str
    hook: Webhook | None
    secrets: tuple[str, ...]


class WebhookStore:
    """Webhooks of one tenant (of the caller), or of all (without a caller).

    Args:
        connections: both Redis roles.
        allowed: host names that need not be public, and may be reached by http.
        clock: seconds since the epoch, for tests; default: the state server's own clock.
        caller: whose webhooks are seen.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        allowed: Collection[str] = (),
        clock: Clock | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._state, self._connections = connections.state, connections
        self._allowed, self._clock, self._caller = frozenset(allowed), clock, caller
        self._tenant = caller.tenant if caller else DEFAULT_TENANT

    def create(self, url: str, events: builtins.list[str], description: str = "") -> NewWebhook:
        """A new webhook with a secret of its own.

        Raises:
            InvalidInput: the address is refused, or an unknown event.
            RateLimited: there are too many.
        """
        hook_id, secret = ids.new_id("hook"), _new_secret()
        facts = {"id": hook_id, "tenant": self._tenant, "description": description, "created_at": time.time()}
        facts |= self._checked({"url": url, "events": events})
        self._put(hook_id, facts, secret)
        return NewWebhook.model_validate({**facts, "secret": secret})

    def get(self, hook_id: str) -> Webhook:
        """One webhook, without its secret.

        Raises:
            NotFound: no such webhook.
        """
        return self._read(hook_id)[0]

    def list(self) -> list[Webhook]:
        """All webhooks, oldest first."""
        return self._of(self._tenant)

    def change(self, hook_id: str, changes: Mapping[str, Any]) -> Webhook:
        """Change `url`, `events` or `description`; one that was disabled is tried again.

        Raises:
            NotFound: no such webhook.
            InvalidInput: as `create`.
        """
        facts = self.get(hook_id).model_dump() | self._checked(changes) | {"disabled_at": None}
        self._put(hook_id, facts)
        return self.get(hook_id)

    def rotate(self, hook_id: str, grace_s: float) -> NewWebhook:
        """A new secret; for `grace_s` more seconds messages are signed with the old one too, as the standard has it.

        Raises:
            NotFound: no such webhook.
            InvalidInput: the grace time is not 0 s to 30 days.
        """
        if not 0 <= grace_s <= LONGEST_GRACE_S:
            rule = f"0 to {LONGEST_GRACE_S}"
            raise InvalidInput(f"/grace_s: must be {rule}", field="/grace_s", rule=rule, value=grace_s)
        self.get(hook_id)
        secret = _new_secret()
        if not _rotate(self._state, [keys.webhook(hook_id)], [clock_arg(self._clock), secret, round(grace_s * 1000)]):
            raise _missing(hook_id)
        return NewWebhook(**self.get(hook_id).model_dump(), secret=secret)

    def delete(self, hook_id: str) -> None:
        """Forget a webhook.

        Raises:
            NotFound: no such webhook.
        """
        tenant = self.get(hook_id).tenant
        _drop(self._state, [keys.webhook(hook_id), keys.webhooks(tenant), keys.deliveries(hook_id)], [hook_id])

    def deliveries(self, hook_id: str) -> builtins.list[Delivery]:
        """The last messages, newest first.

        Raises:
            NotFound: no such webhook.
        """
        self.get(hook_id)
        names = self._state.execute_command("ZREVRANGE", keys.deliveries(hook_id), 0, -1)
        found = (self._delivery(name.decode()) for name in names)
        return [one for one in found if one is not None]

    def test(self, hook_id: str) -> Delivery:
        """Have a message of type `webhook.test` delivered.

        Raises:
            NotFound: no such webhook.
        """
        hook, message_id = self.get(hook_id), ids.new_id("msg")
        self._queue(message_id, hook, TEST, {"webhook": hook.id})
        made = self._delivery(message_id)
        assert made is not None
        return made

    # For whoever delivers.

    def collect(self, consumer: str) -> int:
        """Make messages of the jobs that ended; how many ended."""
        self._group()
        found = self._state.execute_command(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", 100, "STREAMS", keys.ENDED, ">"
        )
        entries = [entry for _, rows in found or () for entry in rows]
        lost = self._state.execute_command(
            "XAUTOCLAIM", keys.ENDED, GROUP, consumer, round(LEASE_S * 1000), "0-0", "COUNT", 100
        )
        entries += [entry for entry in lost[1] if entry[1]]
        for entry_id, fields in entries:
            pairs = dict(zip(fields[::2], fields[1::2], strict=True)) if isinstance(fields, list) else fields
            self._tell_all(pairs[b"id"].decode(), pairs[b"state"].decode())
            self._state.execute_command("XACK", keys.ENDED, GROUP, entry_id)
            self._state.execute_command("XDEL", keys.ENDED, entry_id)
        return len(entries)

    def due(self, most: int = 16) -> builtins.list[Message]:
        """Messages whose time has come; for a minute nobody else gets them."""
        what = (clock_arg(self._clock), most, round(LEASE_S * 1000), keys.delivery(""))
        reply = _due(self._state, [keys.HOOKS_DUE], what)
        return [self._taken(reply[i].decode(), int(reply[i + 1])) for i in range(0, len(reply), 2)]

    def settle(self, message: Message, attempt: Attempt) -> None:
        """Note how a try went: delivered, to be tried again, or given up."""
        good = attempt.status is not None and 200 <= attempt.status < 300
        gone = attempt.status == 410 or message.hook is None
        over = gone or message.attempt > len(BACK_OFF_S)
        state = "delivered" if good else "failed" if over else "pending"
        wait_s = 0.0 if over else BACK_OFF_S[message.attempt - 1] * random.uniform(1, 1.2)  # noqa: S311
        where = [keys.delivery(message.id), keys.HOOKS_DUE]
        what = (clock_arg(self._clock), message.id, message.attempt, attempt.model_dump_json(), state)
        _settle(self._state, where, [*what, round(wait_s * 1000)])
        if gone and message.hook is not None:
            self._put(message.hook.id, message.hook.model_dump() | {"disabled_at": time.time()})

    def _checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        for event in changes.get("events", ()):
            if event not in EVENTS:
                rule = f"one of: {', '.join(EVENTS)}"
                raise InvalidInput(f"/events: {event!r} is not {rule}", field="/events", rule=rule, value=event)
        if "url" in changes:
            check_hook_url(changes["url"], self._allowed)
        return dict(changes)

    def _put(self, hook_id: str, facts: Mapping[str, Any], secret: str = "") -> None:
        where = [keys.webhook(hook_id), keys.webhooks(str(facts["tenant"]))]
        told = {name: value for name, value in facts.items() if name != "old_until"}  # a rotation may come between
        word = _save(self._state, where, [hook_id, json.dumps(told), secret, MOST_HOOKS])[0]
        if word == b"full":
            rule = f"at most {MOST_HOOKS} webhooks"
            raise RateLimited(f"too many webhooks: {rule}", field="/limits/webhooks", rule=rule, value=MOST_HOOKS)

    def _read(self, hook_id: str) -> tuple[Webhook, tuple[str, ...]]:
        """A webhook, and the secrets that sign its messages now, the newest first."""
        fields: Fields = {}
        if ids.is_id("hook", hook_id):
            fields = as_fields(self._state.execute_command("HGETALL", keys.webhook(hook_id)))
        hook = Webhook.model_validate_json(fields["facts"]) if "facts" in fields else None
        if hook is None or (self._caller is not None and hook.tenant != self._tenant):
            raise _missing(hook_id)
        if int(fields.get("old_until", 0)) <= self._now_ms():
            return hook, (fields["secret"],)
        hook = hook.model_copy(update={"old_until": seconds(fields["old_until"])})
        return hook, (fields["secret"], fields["old_secret"])

    def _now_ms(self) -> int:
        return round(self._clock() * 1000) if self._clock else self._state.now_ms()

    def _of(self, tenant: str) -> builtins.list[Webhook]:
        names = self._state.execute_command("ZRANGE", keys.webhooks(tenant), 0, -1)
        return [self._read(name.decode())[0] for name in names]

    def _group(self) -> None:
        try:
            self._state.execute_command("XGROUP", "CREATE", keys.ENDED, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _tell_all(self, job_id: str, state: str) -> None:
        try:
            job, event = JobStore(self._connections).get(job_id), f"job.{state}"
        except NotFound:
            return
        for hook in self._of(job.tenant):
            if event in hook.events and hook.disabled_at is None:
                said = hashlib.sha256(f"{job_id} {state} {hook.id}".encode()).hexdigest()
                self._queue(f"msg_{said[:20]}", hook, event, {"job": _thin(job)})

    def _queue(self, message_id: str, hook: Webhook, event: str, data: dict[str, Any]) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = json.dumps({"type": event, "timestamp": stamp, "data": data})
        where = [keys.delivery(message_id), keys.HOOKS_DUE, keys.deliveries(hook.id)]
        what = (clock_arg(self._clock), message_id, hook.id, event, body, keys.DELIVERY_TTL_S, KEPT)
        _message(self._state, where, what)

    def _taken(self, message_id: str, attempt: int) -> Message:
        fields = as_fields(self._state.execute_command("HGETALL", keys.delivery(message_id)))
        try:
            hook, signing = self._read(fields["webhook"])
        except NotFound:
            return Message(message_id, attempt, fields["body"], None, ())
        return Message(message_id, attempt, fields["body"], hook, signing)

    def _delivery(self, message_id: str) -> Delivery | None:
        fields = as_fields(self._state.execute_command("HGETALL", keys.delivery(message_id)))
        if not fields:
            return None
        lines = fields.get("attempts", "").splitlines()
        return Delivery(
            id=message_id,
            webhook=fields["webhook"],
            event=fields["event"],
            state=fields["state"],
            created_at=int(fields["created_at"]) / 1000,
            next_at=int(fields["next_at"]) / 1000 if "next_at" in fields else None,
            attempts=[Attempt.model_validate_json(line) for line in lines],
        )


def check_hook_url(url: str, allowed: Collection[str]) -> None:
    """Refuse an address that is not public; http is for hosts that the operator allows.

    Raises:
        InvalidInput: see `warploom.addresses`.
    """
    host = parse_url(url, schemes=("https", "http")).host
    check_url(url, allowed=allowed, schemes=("https", "http") if host in allowed else ("https",))


def signature(secrets: Sequence[str], message_id: str, timestamp: int, body: str) -> str:
    """The `webhook-signature` header: HMAC-SHA256 over id, time and body, once for each secret.

    Example:
        >>> signature(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_1", 1614265330, "{}")[:3]
        'v1,'
    """
    said = f"{message_id}.{timestamp}.{body}".encode()
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    digests = (hmac.new(key, said, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _missing(hook_id: str) -> NotFound:
    return NotFound(f"no webhook {hook_id!r}", field="/id", rule="an existing webhook", value=hook_id)


def _thin(job: Job) -> dict[str, Any]:
    """What a message says of a job; the rest is for whoever may ask."""
    told = {"id", "name", "state", "model", "error", "metadata", "created_at", "started_at", "ended_at"}
    return job.model_dump(mode="json", include=told)
