"""Logs of workers over the API."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from service import keys
from service.connection import Connections
from service.jobs import JobStore
from service.logs import LINES_KEPT, LONGEST, LogStore
from service.redact import redacted
from tests.api.conftest import Api
from tests.support.waiting import wait_until

SECRETS = [
    "redis://user:hunter2@host:6379/0 does not answer",
    "key wlk_abcDEF-123_456 refused",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "Authorization: Bearer abcdefgh12345678",
    'WARPLOOM_API_KEY="hunter2 and more" was set',
    "{'password': 'hunter2', 'user': 'me'}",
    "https://host/?token=hunter2&x=1",
]
HIDDEN = ("hunter2", "abcDEF", "MfKQ9", "abcdefgh12345678")


@pytest.fixture
def job(client: Api, connections: Connections, spec: dict[str, Any]) -> str:
    found: str = client.post("/v1/jobs", json=spec).json()["id"]
    JobStore(connections).claim("test", 60)
    return found


def frames(text: str) -> list[str]:
    return [json.loads(line[6:])["message"] for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_taken_out(text: str) -> None:
    assert "***" in redacted(text)
    assert not any(word in redacted(text) for word in HIDDEN)
    assert redacted("a round took 3 s at http://host:80/path") == "a round took 3 s at http://host:80/path"


def test_the_last_lines(client: Api, connections: Connections, job: str) -> None:
    logs, path = LogStore(connections), f"/v1/jobs/{job}/logs"
    assert client.get(path).json() == {"data": [], "has_more": False}
    logs.append(job, "learner", 1, [("info", f"line {i}") for i in range(150)])
    logs.append(job, "rollout-0", 1, [("warning", "slow"), ("error", "broken " + SECRETS[0])])
    said = client.get(path).json()["data"]
    assert (len(said), said[0]["message"], said[-1]["worker"]) == (100, "line 52", "rollout-0")
    assert said[-1]["message"] == "broken redis://user:***@host:6379/0 does not answer"
    assert [one["message"] for one in client.get(path, params={"tail": 2, "worker": "learner"}).json()["data"]] == [
        "line 148",
        "line 149",
    ]
    assert len(client.get(path, params={"level": "warning"}).json()["data"]) == 2
    assert client.get(path, params={"tail": 0}).json()["data"] == []
    for bad in ({"tail": -1}, {"tail": 5001}, {"level": "loud"}, {"follow": "perhaps"}):
        assert client.get(path, params=bad).status_code == 422
    assert client.get("/v1/jobs/job_00000000000000000000/logs").status_code == 404


def test_a_log_is_bounded_and_does_not_stay(connections: Connections) -> None:
    logs, job = LogStore(connections), "job_00000000000000000000"
    for _ in range(12):
        logs.append(job, "learner", 1, [("info", "x")] * 1000)
    assert connections.replay.xlen(keys.logs(job)) < LINES_KEPT + 500
    assert 0 < connections.replay.ttl(keys.logs(job)) <= keys.LOG_TTL_S
    logs.append(job, "learner", 1, [("error", "a" + "b" * 10_000 + "c")])
    (line,) = logs.tail(job, 1)
    assert len(line.message) < LONGEST + 100
    assert line.message[0] == "a" and line.message[-1] == "c"


def test_a_log_is_followed_to_the_end_of_the_job(client: Api, connections: Connections, job: str) -> None:
    logs, path = LogStore(connections), f"/v1/jobs/{job}/logs"
    logs.append(job, "learner", 1, [("info", f"old {i}") for i in range(5)])
    answers: list[Any] = []
    reader = threading.Thread(
        target=lambda: answers.append(client.get(path, params={"follow": True, "tail": 2, "worker": "learner"}))
    )
    reader.start()
    feed = client.app.state.services.live
    wait_until(lambda: feed._feeds[1]._cursors)
    logs.append(job, "learner", 1, [("info", "new")])
    logs.append(job, "evaluator", 1, [("info", "of another")])
    JobStore(connections).finish(job, 1, "succeeded")
    logs.append(job, "learner", 1, [("info", "after the end")])
    reader.join(30)
    assert frames(answers[0].text) == ["old 3", "old 4", "new", "after the end"]
    last = logs.tail(job, 3)[0].id
    resumed = client.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": last})
    assert frames(resumed.text) == ["of another", "after the end"]
