"""What a key used, and who did what."""

from __future__ import annotations

from typing import Any

import pytest

from service.audit import AuditLog
from service.auth import KeyRing
from service.connection import Connections
from service.identity import FIRST
from service.jobs import JobStore
from service.tenancy import SCOPES, Caller
from service.usage import Usage
from tests.api.conftest import Api, FakeAdapter
from tests.api.test_errors import problem
from tests.support.clock import FakeClock
from warploom.errors import Unavailable
from warploom.records import Progress


def usage(client: Api, **query: Any) -> dict[str, int]:
    (day,) = client.get("/v1/usage", params=query).json()["data"]
    return dict(day)


def test_what_a_key_used_is_counted_by_day(
    client: Api, connections: Connections, waves: str, adapter: FakeAdapter, spec: dict[str, Any]
) -> None:
    once = {"Idempotency-Key": "k"}
    for _ in range(2):
        client.post("/v1/jobs", json=spec, headers=once)
    body = {"support": {"x": [[0.5]] * 3, "y": [[0.5]] * 3}, "query": {"x": [[0.5]] * 2}}
    adapted = client.post(f"/v1/models/{waves}/adapt", json=body).json()
    client.post(f"/v1/adaptations/{adapted['id']}/predict", json={"query": {"x": [[0.5]]}})
    found = usage(client)
    assert found["key"] == FIRST and len(found["date"]) == 10
    counted = ("jobs", "sweeps", "adapt_calls", "predict_calls", "rows", "requests", "tasks")
    assert [found[name] for name in counted] == [1, 0, 1, 1, 6, 5, 0]
    assert found["bytes"] > 100
    assert client.get(f"/v1/keys/{FIRST}").json()["used_at"] > 0


def test_tasks_are_counted_once_when_the_job_has_ended(
    client: Api, connections: Connections, spec: dict[str, Any]
) -> None:
    client.post("/v1/jobs", json=spec)
    jobs = JobStore(connections)
    claim = jobs.claim("test", 60)
    assert claim is not None
    jobs.heartbeat(claim.job.id, claim.generation, 60, progress=Progress(meta_step=3, total=3, tasks_done=75))
    for _ in range(2):
        jobs.finish(claim.job.id, claim.generation, "succeeded")
    assert usage(client)["tasks"] == 75


def test_a_key_reads_its_own_usage_and_an_admin_that_of_its_tenant(client: Api, connections: Connections) -> None:
    ring = KeyRing(connections)
    plain, theirs = ring.create("plain", scopes=["adapt"]), ring.create("theirs", tenant="other", scopes=["admin"])
    holder, other = client.as_key(plain.secret), client.as_key(theirs.secret)
    assert usage(holder)["requests"] == 1
    document = problem(holder.get("/v1/usage", params={"key": FIRST}), 403, "forbidden")
    assert document["errors"][0]["pointer"] == "/key"
    assert usage(client, key=plain.id)["requests"] == 2
    problem(other.get("/v1/usage", params={"key": plain.id}), 404, "not_found")
    problem(client.get("/v1/usage", params={"key": "key_none"}), 404, "not_found")
    problem(client.get("/v1/usage", params={"days": 0}), 422, "invalid_input")


def test_usage_waits_for_a_server_that_is_away(
    connections: Connections, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Usage(connections, clock=clock)
    counting.add(FIRST, requests=2)

    def away(*_: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr("service.usage._add", away)
        counting.flush()
    counting.add(FIRST, requests=1, rows=5)
    clock.advance(86400)
    counting.add(FIRST, requests=7)
    counting.flush()
    counting.flush()
    assert [(day.requests, day.rows) for day in counting.days(FIRST, 3)] == [(7, 0), (3, 5)]
    assert connections.state.execute_command("EXISTS", f"wl:key:{FIRST}") == 0, "no record comes into being"


def entries(client: Api) -> list[tuple[str, str, int]]:
    return [(entry["action"], entry["target"], entry["status"]) for entry in client.get("/v1/audit").json()["data"]]


def test_changes_are_written_down_and_reads_are_not(client: Api, spec: dict[str, Any]) -> None:
    job = client.post("/v1/jobs", json=spec, headers={"X-Request-ID": "mine-1"}).json()["id"]
    client.get(f"/v1/jobs/{job}")
    client.post(f"/v1/jobs/{job}/cancel")
    client.post("/v1/jobs", json={})
    client.post("/v1/nothing")
    made = client.post("/v1/keys", json={"name": "x"}).json()
    assert entries(client) == [
        ("POST /v1/keys", made["id"], 201),
        ("POST unmatched", "", 404),
        ("POST /v1/jobs", "", 422),
        ("POST /v1/jobs/{job_id}/cancel", job, 200),
        ("POST /v1/jobs", job, 202),
    ]
    last = client.get("/v1/audit").json()["data"][-1]
    assert (last["key"], last["tenant"], last["request_id"]) == (FIRST, "default", "mine-1") and last["address"]
    assert made["secret"] not in client.get("/v1/audit").text


def test_refusals_of_a_known_key_are_written_down_and_strangers_write_nothing(
    client: Api, connections: Connections, spec: dict[str, Any]
) -> None:
    plain = KeyRing(connections).create("plain", scopes=["adapt"])
    client.as_key(plain.secret).post("/v1/jobs", json=spec)
    client.as_key("wlk_wrong").post("/v1/jobs", json=spec)
    assert entries(client) == [("POST /v1/jobs", "", 403)]


def test_adapting_is_usage_and_no_audit(client: Api, adapter: FakeAdapter, waves: str) -> None:
    client.post(f"/v1/models/{waves}/adapt", json={"support": {"x": [[0.5]], "y": [[0.5]]}})
    assert entries(client) == []


def test_an_admin_reads_its_tenants_entries_page_by_page(client: Api, connections: Connections) -> None:
    theirs = KeyRing(connections).create("theirs", tenant="other", scopes=SCOPES)
    other = client.as_key(theirs.secret)
    for number in range(3):
        client.post("/v1/keys", json={"name": f"a{number}"})
        other.post("/v1/keys", json={"name": f"b{number}"})
    page = other.get("/v1/audit", params={"limit": 2}).json()
    assert [entry["tenant"] for entry in page["data"]] == ["other"] * 2 and page["has_more"]
    rest = other.get("/v1/audit", params={"limit": 2, "after": page["data"][-1]["id"]}).json()
    assert len(rest["data"]) == 1 and not rest["has_more"]
    assert len(entries(client)) == 6
    problem(client.get("/v1/audit", params={"after": "x"}), 422, "invalid_input")


def test_long_values_are_cut(connections: Connections) -> None:
    log = AuditLog(connections)
    log.append(Caller(FIRST), action="POST", target="x" * 5000, status=200, request_id="", address="")
    assert len(log.list().data[0].target) == 200
