"""What can be asked about webhooks: addresses that are told when jobs end."""

from __future__ import annotations

from collections.abc import Sequence

from warploom.client.calls import Call, delete, get, given, part, patch, post
from warploom.client.core import Core
from warploom.records import Delivery, NewWebhook, Page, Webhook


def create(url: str, events: Sequence[str] | None = None, description: str = "") -> Call[NewWebhook]:
    """Have an address told when jobs end. The `secret` that signs its messages can never be read again.

    Args:
        url: https, and a public address.
        events: `job.succeeded`, `job.failed`, `job.cancelled`; default: all.
        description: what it is for.
    """
    wanted = None if events is None else list(events)
    return post("/v1/webhooks", NewWebhook, json=given(url=url, events=wanted, description=description))


async def listing(core: Core) -> list[Webhook]:
    """All webhooks, oldest first; never their secrets."""
    return (await core.do(get("/v1/webhooks", Page[Webhook]))).data


def one(id: str) -> Call[Webhook]:
    """One webhook, without its secret."""
    return get(_path(id), Webhook)


def update(
    id: str, url: str | None = None, events: Sequence[str] | None = None, description: str | None = None
) -> Call[Webhook]:
    """Change what is given. One that was disabled, because it answered 410, is tried again."""
    wanted = None if events is None else list(events)
    return patch(_path(id), Webhook, given(url=url, events=wanted, description=description))


def rotate(id: str, grace_s: float | None = None) -> Call[NewWebhook]:
    """A new secret; for `grace_s` more seconds (a day, unless given) messages are signed with the old one too."""
    return post(_path(id, "/rotate"), NewWebhook, json=given(grace_s=grace_s))


def remove(id: str) -> Call[None]:
    """Forget a webhook; messages on their way are given up."""
    return delete(_path(id))


def test(id: str) -> Call[Delivery]:
    """Have a message of type `webhook.test` sent; `deliveries` says how it went."""
    return post(_path(id, "/test"), Delivery)


async def deliveries(core: Core, id: str) -> list[Delivery]:
    """The last messages, newest first, with every try."""
    return (await core.do(get(_path(id, "/deliveries"), Page[Delivery]))).data


def _path(id: str, rest: str = "") -> str:
    return f"/v1/webhooks/{part(id)}{rest}"
