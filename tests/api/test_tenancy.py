"""Another tenant's objects are not there, and no scope opens what another should: over every route that there is."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI

from service.adaptations import AdaptationQueue
from service.auth import KeyRing
from service.connection import Connections
from service.identity import FIRST
from service.jobs import JobStore
from service.models import ModelStore
from service.sweeps import SweepStore
from service.tenancy import SCOPES
from tests.api.conftest import Api, FakeAdapter, register
from tests.api.test_errors import problem

# A body with which a call would work. Whoever adds a route that needs one adds it here.
BODIES: dict[str, Any] = {
    "/v1/models/{name}/adapt": {"support": {"x": [[0.5]], "y": [[0.5]]}},
    "/v1/adaptations/{adaptation_id}/predict": {"query": {"x": [[0.5]]}},
    "/v1/keys": {"name": "x"},
    "/v1/keys/{key_id}": {"name": "mine"},
    "/v1/sweeps": {},
    "/v1/sweeps/{sweep_id}/promote": {"name": "stolen"},
    "/v1/webhooks": {"url": "https://1.1.1.1/"},
    "/v1/webhooks/{webhook_id}": {"description": "changed"},
    "/v1/jobs/{job_id}": {"metadata": {"a": "b"}},
    "/v1/sweeps/{sweep_id}": {"metadata": {"a": "b"}},
    "/v1/models/{name}/aliases/{alias}": {"version": 1},
    "/v1/models/{name}": {"metadata": {"a": "b"}},
}
# Routes that any key may use, because they speak of that key alone or of nobody.
OPEN = {"/v1/catalog", "/v1/limits", "/v1/whoami", "/v1/usage"}
# A call that may be repeated, so that it answers the same for what is not there (any more).
SILENT = {("DELETE", "/v1/adaptations/{adaptation_id}")}
SWEEP = {"metric": "loss", "space": {"algorithm.inner_lr": {"type": "uniform", "low": 0.1, "high": 0.2}}}


class Call(NamedTuple):
    method: str
    path: str


def calls(app: FastAPI) -> list[Call]:
    found = [
        Call(method.upper(), path)
        for path, item in app.openapi()["paths"].items()
        for method in item
        if path.startswith("/v1/") and method in ("get", "post", "put", "patch", "delete")
    ]
    assert len(found) > 20
    return found


def perform(client: Api, call: Call, names: dict[str, str]) -> Any:
    path = call.path.format_map(names)
    options: dict[str, Any] = {} if call.method in ("GET", "DELETE") else {"json": BODIES.get(call.path, {})}
    return client.request(call.method, path, **options)


def key(connections: Connections, tenant: str, *scopes: str) -> str:
    return KeyRing(connections).create("test", tenant=tenant, scopes=scopes).secret


@pytest.fixture
def owned(client: Api, connections: Connections, spec: dict[str, Any]) -> dict[str, str]:
    """One object of each kind of the default tenant, by the name of the path's parameter."""
    job, sweep = (
        client.post("/v1/jobs", json=spec).json(),
        client.post("/v1/sweeps", json={"job": spec, **SWEEP}).json(),
    )
    register(connections, "waves", kind="regression", input_shape=[1], outputs=1)
    adaptation = AdaptationQueue.new_id()
    record = {"id": adaptation, "model": "waves", "version": 1, "steps": 1, "lr": 0.1, "losses": [], "expires_at": 9e9}
    AdaptationQueue(connections).kept.keep(adaptation, record, b"blob")
    return {
        "job_id": job["id"],
        "sweep_id": sweep["id"],
        "name": "waves",
        "adaptation_id": adaptation,
        "webhook_id": client.post("/v1/webhooks", json={"url": "https://1.1.1.1/"}).json()["id"],
        "version": "1",
        "alias": "stable",
        "step": "0",
        "key_id": FIRST,
    }


@pytest.fixture
def stranger(client: Api, connections: Connections) -> Api:
    return client.as_key(key(connections, "stranger", *SCOPES))


def test_the_owner_reads_its_objects(client: Api, app: FastAPI, owned: dict[str, str]) -> None:
    """So that the 404s below are not those of objects that nobody could see."""
    for call in calls(app):
        if call.method == "GET" and "{" in call.path and "/weights" not in call.path:
            assert perform(client, call, owned).status_code == 200, call


def test_what_belongs_to_another_tenant_is_not_there(stranger: Api, app: FastAPI, owned: dict[str, str]) -> None:
    for call in calls(app):
        if "{" not in call.path:
            continue
        answer = perform(stranger, call, owned)
        if call in SILENT:
            assert answer.status_code == 204
        else:
            problem(answer, 404, "not_found")
    streaming = {"Accept": "text/event-stream"}
    problem(stranger.get(f"/v1/jobs/{owned['job_id']}/events", headers=streaming), 404, "not_found")


def everything(client: Api) -> list[Any]:
    found = [client.get(f"/v1/{kind}").json()["data"] for kind in ("jobs", "sweeps", "models", "keys")]
    for key in found[3]:
        del key["used_at"]
    return found


def test_nothing_of_it_changed(
    stranger: Api, client: Api, app: FastAPI, owned: dict[str, str], connections: Connections
) -> None:
    before = everything(client)
    for call in calls(app):
        if "{" in call.path and call.method != "GET":
            perform(stranger, call, owned)
    assert everything(client) == before
    assert AdaptationQueue(connections).kept.get(owned["adaptation_id"])[1] == b"blob"


@pytest.mark.usefixtures("owned")
def test_lists_hold_ones_own(stranger: Api, client: Api, spec: dict[str, Any]) -> None:
    for kind in ("jobs", "sweeps", "models"):
        assert stranger.get(f"/v1/{kind}").json()["data"] == []
        assert len(client.get(f"/v1/{kind}").json()["data"]) == 1
    mine = stranger.post("/v1/jobs", json=spec).json()
    assert mine["tenant"] == "stranger"
    assert [job["id"] for job in stranger.get("/v1/jobs").json()["data"]] == [mine["id"]]
    assert mine["id"] not in [job["id"] for job in client.get("/v1/jobs").json()["data"]]
    assert [key["tenant"] for key in stranger.get("/v1/keys").json()["data"]] == ["stranger"]


def test_two_tenants_may_use_one_name_for_their_models(
    client: Api, stranger: Api, connections: Connections, adapter: FakeAdapter, waves: str, spec: dict[str, Any]
) -> None:
    job = stranger.post("/v1/jobs", json={**spec, "name": waves}).json()
    register(connections, waves, kind="regression", input_shape=[1], outputs=1, parameters=99, job=job["id"], once="j")
    mine, theirs = (one.get(f"/v1/models/{waves}").json() for one in (client, stranger))
    assert (mine["parameters"], theirs["parameters"], theirs["name"]) == (12, 99, waves)
    assert client.get("/v1/models").json()["data"] == [mine] and stranger.get("/v1/models").json()["data"] == [theirs]
    body = {"support": {"x": [[0.5]], "y": [[0.5]]}}
    for one, full in ((client, "waves"), (stranger, "stranger/waves")):
        adapted = one.post(f"/v1/models/{waves}/adapt", json=body).json()
        assert adapted["model"] == waves and adapter.requests[-1].model == full
        assert one.get(f"/v1/adaptations/{adapted['id']}").json()["model"] == waves
        again = one.post(f"/v1/adaptations/{adapted['id']}/predict", json={"query": {"x": [[0.5]]}})
        assert again.status_code == 200 and adapter.requests[-1].model == full
    problem(client.post(f"/v1/adaptations/{adapted['id']}/predict", json={"query": {"x": [[0.5]]}}), 404, "not_found")


def test_equal_content_is_shared_within_a_tenant_alone(
    client: Api, stranger: Api, connections: Connections, adapter: FakeAdapter, waves: str, spec: dict[str, Any]
) -> None:
    """Nobody learns, from an answer or its speed, that another tenant adapted to the same examples before."""
    job = stranger.post("/v1/jobs", json={**spec, "name": waves}).json()
    register(connections, waves, kind="regression", input_shape=[1], outputs=1, job=job["id"], once="j")
    colleague = client.as_key(key(connections, "default", "adapt"))
    body = {"support": {"x": [[0.5]], "y": [[0.5]]}}
    first = client.post(f"/v1/models/{waves}/adapt", json=body).json()
    content = adapter.requests[0].content
    AdaptationQueue(connections).kept.keep(first["id"], {}, b"blob", content=content)
    for one, told in ((colleague, first["id"]), (stranger, "")):
        one.post(f"/v1/models/{waves}/adapt", json=body)
        assert (adapter.requests[-1].before or "") == told, "which result the adapter may give instead of a new one"
    assert adapter.requests[1].content == content != adapter.requests[2].content


def test_an_idempotency_key_means_what_its_api_key_means_by_it(
    client: Api, stranger: Api, connections: Connections, spec: dict[str, Any]
) -> None:
    once = {"Idempotency-Key": "mine"}
    first = client.post("/v1/jobs", json=spec, headers=once).json()["id"]
    assert client.post("/v1/jobs", json=spec, headers=once).json()["id"] == first
    other = stranger.post("/v1/jobs", json={**spec, "name": "other"}, headers=once)
    assert other.status_code == 202 and other.json()["id"] != first
    second = client.as_key(key(connections, "default", "jobs:write"))
    assert second.post("/v1/jobs", json=spec, headers=once).json()["id"] != first


def expected(call: Call) -> set[str]:
    """Which scopes open a route."""
    if call.path in OPEN:
        return set(SCOPES)
    if call.path.startswith(("/v1/keys", "/v1/audit")):
        return {"admin"}
    if call.path.startswith("/v1/adaptations") or call.path.endswith("/adapt"):
        return {"adapt"}
    if call.method == "GET":
        return {"jobs:read", "adapt"} if call.path.startswith("/v1/models") else {"jobs:read"}
    return {"jobs:write"}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_without_the_scope_is_refused(
    client: Api, app: FastAPI, connections: Connections, owned: dict[str, str], scope: str
) -> None:
    holder = client.as_key(key(connections, "default", scope))
    for call in calls(app):
        if scope not in expected(call):
            document = problem(perform(holder, call, owned), 403, "forbidden")
            (error,) = document["errors"]
            assert error["pointer"] == "/headers/authorization" and error["value"] == scope
        elif call.method == "GET" and "/weights" not in call.path:
            assert perform(holder, call, owned).status_code == 200, call


def test_a_key_lives_and_dies_over_the_api(client: Api) -> None:
    answer = client.post("/v1/keys", json={"name": "ci", "tenant": "acme", "scopes": ["jobs:read"]})
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert answer.headers["location"] == f"/v1/keys/{made['id']}"
    assert "secret" not in client.get(f"/v1/keys/{made['id']}").json()
    new = client.post(f"/v1/keys/{made['id']}/rotate", json={"grace_s": 60}).json()
    for secret in (made["secret"], new["secret"]):
        assert client.as_key(secret).get("/v1/whoami").json() == {
            "key": made["id"], "name": "ci", "tenant": "acme", "scopes": ["jobs:read"], "expires_at": None
        }  # fmt: skip
    assert client.post(f"/v1/keys/{made['id']}/revoke").json()["revoked_at"]
    for secret in (made["secret"], new["secret"]):
        document = problem(client.as_key(secret).get("/v1/whoami"), 401, "unauthenticated")
        assert document["errors"][0]["value"] == made["id"]


def test_a_key_is_changed_from_its_next_request_on(client: Api, connections: Connections) -> None:
    made = client.post("/v1/keys", json={"name": "a", "limits": {"jobs": 3}}).json()
    path, holder = f"/v1/keys/{made['id']}", client.as_key(made["secret"])
    assert holder.get("/v1/jobs").status_code == 200
    found = client.request("PATCH", path, json={"name": "b", "scopes": ["adapt"]}).json()
    assert (found["name"], found["scopes"], found["limits"]) == ("b", ["adapt"], {"jobs": 3})
    problem(holder.get("/v1/jobs"), 403, "forbidden")
    assert holder.get("/v1/limits").json()["limits"]["jobs"]["limit"] == 3
    assert client.request("PATCH", path, json={"limits": {}}).json()["limits"] == {}
    assert holder.get("/v1/limits").json()["limits"]["jobs"]["limit"] > 3
    assert client.request("PATCH", path, json={}).json()["name"] == "b"
    for bad in ({"scopes": ["root"]}, {"scopes": []}, {"limits": {"jbos": 1}}, {"name": "a\nb"}, {"tenant": "other"}):
        problem(client.request("PATCH", path, json=bad), 422, "invalid_input")
    document = problem(client.request("PATCH", f"/v1/keys/{FIRST}", json={"scopes": ["adapt"]}), 409, "conflict")
    assert document["errors"][0]["pointer"] == "/scopes", "or nobody could manage keys any more"
    client.post(f"{path}/revoke")
    problem(client.request("PATCH", path, json={"name": "c"}), 409, "conflict")


def test_stores_without_a_caller_see_all_tenants(stranger: Api, connections: Connections, spec: dict[str, Any]) -> None:
    """As workers do."""
    job = stranger.post("/v1/jobs", json=spec).json()
    sweep = stranger.post("/v1/sweeps", json={"job": spec, **SWEEP}).json()
    assert JobStore(connections).get(job["id"]).tenant == "stranger"
    claim = JobStore(connections).claim("test", 60)
    assert claim and claim.job.id == job["id"]
    assert SweepStore(connections).get(sweep["id"]).tenant == "stranger"
    register(connections, "of-a-sweep", sweep=sweep["id"])
    assert stranger.get("/v1/models/of-a-sweep").status_code == 200
    assert ModelStore(connections).get("stranger/of-a-sweep").name == "of-a-sweep"
