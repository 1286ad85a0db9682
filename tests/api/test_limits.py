"""Limits of a key over HTTP: what is refused, how, and what the key may ask about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from service.auth import KeyRing
from service.connection import Connections
from service.settings import Settings
from tests.api.conftest import Api, FakeAdapter
from tests.api.test_errors import problem
from tests.support.proxy import Proxy

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def ring(connections: Connections) -> KeyRing:
    return KeyRing(connections)


def limited(client: Api, ring: KeyRing, **limits: int) -> Api:
    return client.as_key(ring.create("limited", limits=limits).secret)


def test_requests_over_the_limit_are_told_when_to_come_back(client: Api, ring: KeyRing) -> None:
    mine = limited(client, ring, requests_per_minute=3)
    assert [mine.get("/v1/whoami").status_code for _ in range(3)] == [200, 200, 200]
    answer = mine.get("/v1/whoami")
    document = problem(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert document["errors"][0]["pointer"] == "/limits/requests_per_minute"
    assert document["errors"][0]["rule"] == "at most 3 in a minute"
    assert client.get("/v1/whoami").status_code == 200, "other keys are not touched"


def test_jobs_over_the_limit(client: Api, ring: KeyRing, spec: dict[str, Any]) -> None:
    mine = limited(client, ring, jobs=1)
    first = mine.post("/v1/jobs", json=spec).json()["id"]
    answer = mine.post("/v1/jobs", json=spec)
    assert problem(answer, 429, "rate_limited")["errors"][0]["pointer"] == "/limits/jobs"
    assert answer.headers["retry-after"] == "30"
    mine.post(f"/v1/jobs/{first}/cancel")
    assert mine.post("/v1/jobs", json=spec).status_code == 202


def test_trials_over_the_limit(client: Api, ring: KeyRing, spec: dict[str, Any]) -> None:
    space = {"algorithm.inner_lr": {"type": "uniform", "low": 0.1, "high": 0.2}}
    sweep = {"job": spec, "metric": "loss", "space": space, "num_samples": 4}
    document = problem(limited(client, ring, sweep_trials=3).post("/v1/sweeps", json=sweep), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/num_samples" and document["errors"][0]["value"] == 4
    assert limited(client, ring, sweep_trials=4).post("/v1/sweeps", json=sweep).status_code == 202


@pytest.mark.usefixtures("adapter")
def test_rows_over_the_limit(client: Api, ring: KeyRing, waves: str) -> None:
    body = {"support": {"x": [[0.5]] * 3, "y": [[0.5]] * 3}, "query": {"x": [[0.5]] * 2}}
    path = f"/v1/models/{waves}/adapt"
    mine = limited(client, ring, rows_per_minute=8)
    assert mine.post(path, json=body).status_code == 200
    answer = mine.post(path, json=body)
    assert problem(answer, 429, "rate_limited")["errors"][0]["pointer"] == "/limits/rows_per_minute"
    assert answer.headers["retry-after"] == "15"
    problem(limited(client, ring, rows_per_minute=4).post(path, json=body), 413, "too_large")
    problem(limited(client, ring, support_rows=2).post(path, json=body), 422, "invalid_input")


def pieces(count: int, size: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize("stated", [True, False])
def test_bytes_over_the_limit(client: Api, ring: KeyRing, stated: bool) -> None:
    mine = limited(client, ring, bytes_per_minute=2500, body_bytes=2000)
    body: Any = b" " * 1500 if stated else pieces(15, 100)
    assert mine.post("/v1/jobs", content=body, headers=JSON).status_code in (400, 422)
    answer = mine.post("/v1/jobs", content=b" " * 1500 if stated else pieces(15, 100), headers=JSON)
    problem(answer, 429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
    body = b" " * 2001 if stated else pieces(21, 100)
    assert problem(mine.post("/v1/jobs", content=body, headers=JSON), 413, "too_large")


def test_a_key_may_ask_what_is_left(client: Api, ring: KeyRing, spec: dict[str, Any]) -> None:
    mine = limited(client, ring, requests_per_minute=60, bytes_per_minute=600, jobs=5, body_bytes=10**12)
    mine.post("/v1/jobs", json=spec)
    found = mine.get("/v1/limits").json()
    limits = found["limits"]
    assert limits["requests_per_minute"]["limit"] == 60 and 1 <= limits["requests_per_minute"]["used"] <= 2
    assert 0 < limits["requests_per_minute"]["reset_s"] <= 2
    assert limits["jobs"] == {"limit": 5, "used": 1, "reset_s": None}
    assert limits["body_bytes"]["limit"] == found["max_body_bytes"], "no key may send more than the service reads"
    assert limits["bytes_per_minute"]["used"] > 50


def test_without_the_replay_server_nothing_is_counted_and_everything_else_works(
    settings: Settings, connections: Connections, ring: KeyRing
) -> None:
    secret = ring.create("limited", limits={"requests_per_minute": 1}).secret
    with Proxy(settings.replay_url) as proxy:
        app = create_app(settings.model_copy(update={"replay_url": proxy.url}), connections)
        with Api(app, {"Authorization": f"Bearer {secret}"}) as mine:
            proxy.away(True)
            assert [mine.get("/v1/jobs").status_code for _ in range(3)] == [200, 200, 200]
            proxy.away(False)
            assert [mine.get("/v1/jobs").status_code for _ in range(2)] == [200, 429]


def test_keys_with_odd_limits_are_not_made(client: Api) -> None:
    for limits in ({"jbos": 1}, {"jobs": -1}, {"jobs": 1.5}):
        problem(client.post("/v1/keys", json={"name": "x", "limits": limits}), 422, "invalid_input")


@pytest.mark.usefixtures("adapter")
def test_a_predict_counts_its_rows(client: Api, ring: KeyRing, waves: str, adapter: FakeAdapter) -> None:
    mine = limited(client, ring, rows_per_minute=3)
    body = {"support": {"x": [[0.5]], "y": [[0.5]]}}
    adapted = mine.post(f"/v1/models/{waves}/adapt", json=body).json()
    predict = f"/v1/adaptations/{adapted['id']}/predict"
    assert mine.post(predict, json={"query": {"x": [[0.5]] * 2}}).status_code == 200
    problem(mine.post(predict, json={"query": {"x": [[0.5]] * 2}}), 429, "rate_limited")
