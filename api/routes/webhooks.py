"""Webhooks, as Standard Webhooks describes them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from api.deps import Id, JsonOnly, ServicesDep
from service.webhooks import EVENTS, LONGEST_GRACE_S
from warploom.addresses import LONGEST_URL
from warploom.configs import Config
from warploom.records import Delivery, NewWebhook, Page, Webhook

router = APIRouter(tags=["webhooks"])
Url = Annotated[str, Field(max_length=LONGEST_URL, description="https, and a public address")]
Events = Annotated[tuple[str, ...], Field(min_length=1, max_length=len(EVENTS), description=", ".join(EVENTS))]
Words = Annotated[str, Field(max_length=300)]


class HookBody(Config):
    """A webhook to make."""

    url: Url
    events: Events = EVENTS
    description: Words = ""


class HookChanges(Config):
    """What to change of a webhook."""

    url: Url | None = None
    events: Events | None = None
    description: Words | None = None


class HookRotation(Config):
    """How to rotate."""

    grace_s: Annotated[
        float, Field(ge=0, le=LONGEST_GRACE_S, description="seconds in which the old secret signs too")
    ] = 86400


@router.post("/webhooks", summary="Make a webhook", status_code=201, dependencies=[JsonOnly])
def create(body: HookBody, services: ServicesDep, response: Response) -> NewWebhook:
    """Have an address told when jobs end. The `secret` that signs its messages is in this answer alone.

    Private addresses are refused, now and again when a message is sent.
    """
    made = services.webhooks.create(body.url, list(body.events), body.description)
    response.headers.update({"Cache-Control": "no-store", "Location": f"/v1/webhooks/{made.id}"})
    return made


@router.get("/webhooks", summary="List webhooks")
def listing(services: ServicesDep) -> Page[Webhook]:
    """All webhooks, oldest first; there are 20 at most."""
    return Page[Webhook](data=services.webhooks.list())


@router.get("/webhooks/{webhook_id}", summary="Get a webhook")
def one(webhook_id: Id, services: ServicesDep) -> Webhook:
    """One webhook, without its secret."""
    return services.webhooks.get(webhook_id)


@router.patch("/webhooks/{webhook_id}", summary="Change a webhook", dependencies=[JsonOnly])
def change(webhook_id: Id, body: HookChanges, services: ServicesDep) -> Webhook:
    """Change what is named. One that was disabled, because it answered 410, is tried again."""
    return services.webhooks.change(webhook_id, body.model_dump(exclude_none=True))


@router.post("/webhooks/{webhook_id}/rotate", summary="Rotate a webhook's secret", dependencies=[JsonOnly])
def rotate(webhook_id: Id, body: HookRotation, services: ServicesDep, response: Response) -> NewWebhook:
    """A new secret, in this answer alone. For `grace_s` more seconds messages carry two signatures, so that the
    receiver can change over when it likes."""
    made = services.webhooks.rotate(webhook_id, body.grace_s)
    response.headers["Cache-Control"] = "no-store"
    return made


@router.delete("/webhooks/{webhook_id}", summary="Delete a webhook", status_code=204)
def delete(webhook_id: Id, services: ServicesDep) -> None:
    """Forget a webhook; messages on their way are given up."""
    services.webhooks.delete(webhook_id)


@router.get("/webhooks/{webhook_id}/deliveries", summary="List a webhook's deliveries")
def deliveries(webhook_id: Id, services: ServicesDep) -> Page[Delivery]:
    """The last 200 messages of the last week, newest first, with every try."""
    return Page[Delivery](data=services.webhooks.deliveries(webhook_id))


@router.post("/webhooks/{webhook_id}/test", summary="Test a webhook", status_code=202)
def test(webhook_id: Id, services: ServicesDep) -> Delivery:
    """Have a message of type `webhook.test` delivered; its deliveries say how it went."""
    return services.webhooks.test(webhook_id)
