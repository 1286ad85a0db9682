"""The API while one of two replay servers is lost and comes back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from service.auth import KeyRing
from service.connection import Connections, connect
from service.embedded import EmbeddedRedis
from service.fleet import Fleet
from service.logs import LogStore
from service.settings import Settings
from tests.api.conftest import KEY, Api, FakeAdapter, register
from tests.support.waiting import wait_until

TASK = {"support": {"x": [[0.0], [1.0]], "y": [0.0, 1.0]}, "query": {"x": [[2.0]]}}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis", shards=2) as found:
        yield found


@pytest.fixture
def connections(servers: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    monkeypatch.setattr("service.connection.REST_S", 0.05)
    found = connect(Settings(state_url=servers.state_url, replay_url=servers.replay_url))
    yield found
    found.close()


@pytest.fixture
def client(servers: EmbeddedRedis, connections: Connections, tmp_path: Path) -> Iterator[Api]:
    settings = Settings(state_url=servers.state_url, replay_url=servers.replay_url, home=tmp_path, adapt_wait_s=20)
    KeyRing(connections).ensure_first(KEY)
    with Api(create_app(settings, connections), {"Authorization": f"Bearer {KEY}"}) as found:
        yield found


def test_adaptation_goes_on_while_a_server_is_lost(
    client: Api, connections: Connections, servers: EmbeddedRedis
) -> None:
    register(connections, "waves", kind="regression", input_shape=[1], outputs=1)
    Fleet(connections).beat("supervisor", "fake", 600)

    def adapted() -> str:
        answer = client.post("/v1/models/waves/adapt", json=TASK)
        assert answer.status_code == 200, answer.text
        assert answer.json()["prediction"]["outputs"] == [[2.0]]
        return str(answer.json()["id"])

    def predicts(adaptation: str) -> int:
        answer = client.post(f"/v1/adaptations/{adaptation}/predict", json={"query": {"x": [[3.0]]}})
        return answer.status_code

    with FakeAdapter(connections) as fake:
        before = adapted()
        fake.deaf = True
        os.kill(servers.pid("replay"), signal.SIGKILL)
        wait_until(lambda: "replay" in servers.dead())
        fake.deaf = False
        during = adapted()
        assert predicts(during) == 200
        assert predicts(before) == 404, "lost with its server"
        ready = client.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert ready.json()["parts"]["replay_shards"] == ["down", "up"]
        assert 'warploom_replay_shard_up{shard="0"} 0.0' in client.get("/metrics").text
        servers.revive("replay")
        wait_until(lambda: client.get("/readyz").json()["parts"]["replay_shards"] == ["up", "up"])
        assert predicts(adapted()) == 200
        assert predicts(during) == 200, "found where it was kept"


def test_a_request_that_waits_is_sent_to_the_server_that_is_left(
    client: Api, connections: Connections, servers: EmbeddedRedis
) -> None:
    register(connections, "waves", kind="regression", input_shape=[1], outputs=1)
    with FakeAdapter(connections) as fake:
        fake.deaf = True
        answers: list[int] = []

        def ask() -> None:
            answers.append(client.post("/v1/models/waves/adapt", json=TASK).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: fake.queue.pending() == 1)
        os.kill(servers.pid("replay"), signal.SIGKILL)
        wait_until(lambda: fake.queue.pending() == 1 and connections.replay.away)
        fake.deaf = False
        asking.join()
        assert answers == [200]


def test_a_jobs_log_is_read_from_the_server_that_is_left(
    client: Api, connections: Connections, servers: EmbeddedRedis
) -> None:
    spec = {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"}
    job = client.post("/v1/jobs", json=spec).json()["id"]
    logs = LogStore(connections)
    logs.append(job, "learner", 1, [("info", "before")])
    os.kill(servers.pid("replay"), signal.SIGKILL)
    logs.append(job, "learner", 1, [("info", "after")])

    def said() -> list[str]:
        return [line["message"] for line in client.get(f"/v1/jobs/{job}/logs").json()["data"]]

    assert said() == ["before", "after"]
    servers.revive("replay")
    wait_until(lambda: Fleet(connections).alive() == {} and not connections.replay.away)
    assert said() == ["before", "after"]
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    stream = client.get(f"/v1/jobs/{job}/logs", params={"follow": "true"}).text
    assert stream.index("before") < stream.index("after")
