"""Webhooks: signed, tried again, never to private addresses, never by two."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from service import keys
from service.connection import Connections
from service.jobs import JobStore
from service.webhooks import BACK_OFF_S, WebhookStore
from tests.api.conftest import Api
from tests.support.clock import FakeClock
from tests.support.waiting import wait_until
from warploom.records import Attempt

ALLOWED = frozenset({"127.0.0.1"})


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers.items()), body))
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def log_of(client: Api, hook_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/webhooks/{hook_id}/deliveries").json()["data"]
    return found


def test_a_webhook_lives_and_dies(client: Api) -> None:
    made = client.post("/v1/webhooks", json={"url": "https://example.com/a", "events": ["job.failed"]})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    hook = made.json()
    path = f"/v1/webhooks/{hook['id']}"
    assert hook.pop("secret").startswith("whsec_")
    assert client.get(path).json() == hook and client.get("/v1/webhooks").json()["data"] == [hook]
    changed = client.request("PATCH", path, json={"events": ["job.cancelled"]}).json()
    assert (changed["events"], changed["url"]) == (["job.cancelled"], hook["url"])
    for bad in ({"events": ["job.born"]}, {"events": []}, {"url": "ftp://example.com"}, {"secret": "x"}):
        assert client.request("PATCH", path, json=bad).status_code == 422
    assert client.delete(path).status_code == 204
    assert client.delete(path).status_code == 404 and client.get(path).status_code == 404


@pytest.mark.parametrize(
    "url",
    ["http://1.1.1.1/", "https://10.0.0.1/", "https://169.254.169.254/x", "https://localhost/", "https://[::1]/", "x"],
)
def test_private_addresses_are_refused_at_the_door(client: Api, url: str) -> None:
    answer = client.post("/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/url")


def test_the_end_of_a_job_is_told_once_and_signed(
    client: Api, connections: Connections, receiver: Receiver, spec: dict[str, Any]
) -> None:
    hook = client.post("/v1/webhooks", json={"url": receiver.url}).json()
    deaf = client.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.failed"]}).json()
    job = client.post("/v1/jobs", json=spec).json()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    wait_until(lambda: log_of(client, hook["id"]) and log_of(client, hook["id"])[0]["state"] == "delivered", 30)
    ((headers, body),) = receiver.got
    told = Verifier(hook["secret"]).verify(body, headers)
    assert (told["type"], told["data"]["job"]["id"]) == ("job.cancelled", job["id"])
    (delivery,) = log_of(client, hook["id"])
    lowered = {name.lower(): value for name, value in headers.items()}
    assert (delivery["id"], delivery["attempts"][0]["status"]) == (lowered["webhook-id"], 200)
    assert log_of(client, deaf["id"]) == []
    test = client.post(f"/v1/webhooks/{deaf['id']}/test")
    assert (test.status_code, test.json()["event"]) == (202, "webhook.test")
    wait_until(lambda: len(receiver.got) == 2, 30)
    assert Verifier(deaf["secret"]).verify(receiver.got[1][1], receiver.got[1][0])["type"] == "webhook.test"


def test_a_rotated_webhook_signs_with_both_secrets_for_a_while(
    client: Api, connections: Connections, receiver: Receiver
) -> None:
    hook = client.post("/v1/webhooks", json={"url": receiver.url}).json()
    path = f"/v1/webhooks/{hook['id']}"
    first = client.post(f"{path}/rotate", json={})
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-store")
    assert 86000 < first.json()["old_until"] - time.time() <= 86400
    second = client.post(f"{path}/rotate", json={"grace_s": 3600}).json()
    assert len({hook["secret"], first.json()["secret"], second["secret"]}) == 3
    client.request("PATCH", path, json={"description": "moved"})
    found = client.get(path).json()
    assert (found["description"], found["old_until"]) == ("moved", second["old_until"]) and "secret" not in found
    client.post(f"{path}/test")
    wait_until(lambda: receiver.got, 30)
    headers, body = receiver.got[0]
    for secret in (second["secret"], first.json()["secret"]):
        assert Verifier(secret).verify(body, headers)["type"] == "webhook.test"
    with pytest.raises(WebhookVerificationError):
        Verifier(hook["secret"]).verify(body, headers)
    last = client.post(f"{path}/rotate", json={"grace_s": 0}).json()
    assert last["old_until"] is None
    for bad in ({"grace_s": -1}, {"grace_s": 10**8}, {"secret": "whsec_mine"}):
        assert client.post(f"{path}/rotate", json=bad).status_code == 422
    absent = client.post("/v1/webhooks/hook_00000000000000000000/rotate", json={})
    assert (absent.status_code, absent.json()["errors"][0]["pointer"]) == (404, "/id")


def test_the_old_secret_of_a_webhook_ends(connections: Connections, clock: FakeClock) -> None:
    store = WebhookStore(connections, allowed=ALLOWED, clock=clock)
    hook = store.create("http://127.0.0.1:9/", ["job.failed"])
    new = store.rotate(hook.id, 60)
    store.test(hook.id)
    clock.advance(59)
    (message,) = store.due()
    assert message.secrets == (new.secret, hook.secret)
    store.settle(message, Attempt(at=0, seconds=0, status=200))
    clock.advance(1)
    store.test(hook.id)
    (message,) = store.due()
    assert message.secrets == (new.secret,) and store.get(hook.id).old_until is None


def test_a_failure_is_tried_again_and_410_is_the_end(client: Api, connections: Connections, receiver: Receiver) -> None:
    receiver.status = 302
    hook = client.post("/v1/webhooks", json={"url": receiver.url}).json()
    client.post(f"/v1/webhooks/{hook['id']}/test")
    wait_until(lambda: len(log_of(client, hook["id"])[0]["attempts"]) == 1, 30)
    (delivery,) = log_of(client, hook["id"])
    assert (delivery["state"], delivery["attempts"][0]["status"]) == ("pending", 302)
    assert BACK_OFF_S[0] <= delivery["next_at"] - delivery["attempts"][0]["at"] < 2 * BACK_OFF_S[0] + 5
    receiver.status = 410
    connections.state.execute_command("ZADD", keys.HOOKS_DUE, 1, delivery["id"])
    wait_until(lambda: log_of(client, hook["id"])[0]["state"] == "failed", 30)
    assert [one["status"] for one in log_of(client, hook["id"])[0]["attempts"]] == [302, 410]
    wait_until(lambda: client.get(f"/v1/webhooks/{hook['id']}").json()["disabled_at"], 30)


def test_a_message_is_taken_by_one_and_given_up_in_the_end(connections: Connections) -> None:
    store = WebhookStore(connections, allowed=ALLOWED)
    hook = store.create("http://127.0.0.1:9/", ["job.failed"])
    store.test(hook.id)
    for attempt in range(1, len(BACK_OFF_S) + 2):
        (message,) = store.due()
        assert (message.attempt, store.due()) == (attempt, [])
        store.settle(message, Attempt(at=0, seconds=0, error="no"))
        store.settle(message._replace(attempt=attempt - 1), Attempt(at=0, seconds=0, status=200))
        connections.state.execute_command("ZADD", keys.HOOKS_DUE, "XX", 1, message.id)
    (delivery,) = store.deliveries(hook.id)
    assert (delivery.state, len(delivery.attempts)) == ("failed", len(BACK_OFF_S) + 1)
    assert store.due() == [] and connections.state.zcard(keys.HOOKS_DUE) == 0


def test_ends_are_collected_once_whoever_collects(connections: Connections, spec: dict[str, Any], client: Api) -> None:
    store = WebhookStore(connections, allowed=ALLOWED)
    hook = store.create("http://127.0.0.1:9/", ["job.cancelled"])
    made = [client.post("/v1/jobs", json=spec).json()["id"] for _ in range(3)]
    for job_id in made:
        JobStore(connections).cancel(job_id)
    threads = [threading.Thread(target=store.collect, args=(f"c{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(store.deliveries(hook.id)) == 3, 30)
    assert connections.state.xlen(keys.ENDED) == 0


def test_an_address_is_judged_again_when_it_is_used(client: Api, connections: Connections) -> None:
    open_store = WebhookStore(connections, allowed={"10.1.1.1"})
    hook = open_store.create("https://10.1.1.1/", ["job.failed"])
    open_store.test(hook.id)
    wait_until(lambda: log_of(client, hook.id)[0]["attempts"], 30)
    assert "not a public address" in log_of(client, hook.id)[0]["attempts"][0]["error"]
