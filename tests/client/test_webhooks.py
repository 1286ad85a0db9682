"""Webhooks: what the client sends, and that it makes nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.client.conftest import Recorder, ok
from warploom import errors

Maker = Callable[..., Any]
HOOK = {"id": "hook_1", "url": "https://example.com/", "events": ["job.failed"], "created_at": 1.0}
SENT = {"id": "msg_1", "webhook": "hook_1", "event": "webhook.test", "state": "pending", "created_at": 1.0}
PATH = "/v1/webhooks"


def test_a_webhook_is_made_changed_tried_and_deleted(client_of: Maker) -> None:
    recorder = Recorder(
        ok(HOOK | {"secret": "whsec_x"}, 201), ok({"data": [HOOK]}), ok(HOOK), ok(SENT, 202),
        ok({"data": [SENT]}), httpx.Response(204),
    )  # fmt: skip
    with client_of(recorder) as client:
        assert client.create_webhook("https://example.com/", ("job.failed",)).secret == "whsec_x"
        assert [hook.id for hook in client.webhooks()] == ["hook_1"]
        assert client.update_webhook("hook_1", description="").disabled_at is None
        assert client.test_webhook("hook_1").state == "pending"
        assert client.deliveries("hook_1")[0].event == "webhook.test"
        client.delete_webhook("hook_1")
    asked = [(request.method, request.url.path) for request in recorder.requests]
    assert asked == [
        ("POST", PATH), ("GET", PATH), ("PATCH", f"{PATH}/hook_1"), ("POST", f"{PATH}/hook_1/test"),
        ("GET", f"{PATH}/hook_1/deliveries"), ("DELETE", f"{PATH}/hook_1"),
    ]  # fmt: skip
    bodies = [json.loads(recorder.requests[i].content) for i in (0, 2)]
    assert bodies == [
        {"url": "https://example.com/", "events": ["job.failed"], "description": ""},
        {"description": ""},
    ]


@pytest.mark.parametrize("name", ["create_webhook", "test_webhook"])
def test_what_may_have_been_done_is_not_done_again(client_of: Maker, name: str) -> None:
    recorder = Recorder(httpx.ReadError("broke"))
    with client_of(recorder) as client, pytest.raises(errors.Unavailable):
        getattr(client, name)("hook_1")
    assert len(recorder.requests) == 1
