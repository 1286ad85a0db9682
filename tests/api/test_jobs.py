"""Jobs, their events, sweeps, and the pages about the service."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from service.connection import Connections
from service.counters import Counters
from service.events import EventLog
from service.fleet import Fleet
from service.jobs import JobClaim, JobStore
from tests.api.conftest import Api, register

STREAM = {"Accept": "text/event-stream"}


def frames(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert fields["id"] == event["id"]
            assert fields["event"] == event["kind"]
            found.append(event)
    return found


@pytest.fixture
def claim(client: Api, connections: Connections, spec: dict[str, Any]) -> JobClaim:
    client.post("/v1/jobs", json=spec)
    claim = JobStore(connections).claim("test", 60)
    assert claim is not None
    return claim


def add_rounds(connections: Connections, claim: JobClaim, count: int) -> None:
    log = EventLog(connections)
    for step in range(count):
        log.append(claim.job.id, "round", {"meta_step": step}, generation=claim.generation)


def finish(connections: Connections, claim: JobClaim) -> None:
    JobStore(connections).finish(claim.job.id, claim.generation, "succeeded", model="m")


def test_a_submission_with_a_key_can_be_repeated(client: Api, spec: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "order-66"}
    first, again = (client.post("/v1/jobs", json=spec, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    refused = client.post("/v1/jobs", json={**spec, "name": "another"}, headers=headers)
    assert refused.status_code == 422
    assert "order-66" in refused.json()["detail"]
    assert len(client.get("/v1/jobs").json()["data"]) == 1
    too_long = client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "x" * 256})
    assert too_long.status_code == 422


def test_a_dry_run_checks_and_makes_nothing(client: Api, spec: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", params={"dry_run": "true"}, json=spec)
    assert answer.status_code == 200
    told = answer.json()
    assert told["dry_run"] is True
    assert told["spec"]["training"]["meta_batch"] == 5
    assert told["estimate"]["tasks"] == 15
    assert told["estimate"]["inner_steps"] == 15 * told["spec"]["algorithm"]["inner_steps"]
    assert told["estimate"]["meta_state_bytes"] == 4 * told["estimate"]["parameters"]
    assert client.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("flag", ["true", "false"])
def test_every_bad_field_of_a_job_is_named(client: Api, spec: dict[str, Any], flag: str) -> None:
    bad = {
        "algorithm": {"name": "warpgrad", "inner_lr": -1, "iner_steps": 3},
        "task": {"name": "sinusoid", "shots": "many"},
        "training": {"rounds": 2.5, "seed": None},
        "replay": {"max_bytes": 1},
        "extra": 1,
    }
    answer = client.post("/v1/jobs", params={"dry_run": flag}, json={**spec, **bad})
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "/algorithm/inner_lr",
        "/algorithm/iner_steps",
        "/task/shots",
        "/training/rounds",
        "/training/seed",
        "/replay/max_bytes",
        "/extra",
    }


def test_a_job_that_would_wait_for_ever_is_refused_at_the_door(client: Api, spec: dict[str, Any]) -> None:
    stuck = {**spec, "training": {"mode": "async"}, "replay": {"min_trajectories": 10_000}}
    answer = client.post("/v1/jobs", json=stuck)
    assert answer.status_code == 422
    assert "wait for ever" in answer.json()["detail"]
    assert client.get("/v1/jobs").json()["data"] == []


def test_lists_are_filtered_and_ordered(client: Api, connections: Connections, spec: dict[str, Any]) -> None:
    space = {"algorithm.inner_lr": {"type": "uniform", "low": 0.001, "high": 1}}
    sweep = {"job": spec, "space": space}
    for path, body in (("/v1/jobs", spec), ("/v1/sweeps", sweep)):
        made = [client.post(path, json={**body, "metadata": {"n": str(i)}}).json() for i in range(4)]
        ids = [one["id"] for one in made]
        client.post(f"{path}/{ids[2]}/cancel")

        def found(asked: dict[str, Any], path: str = path) -> list[str]:
            return [one["id"] for one in client.get(path, params=asked).json()["data"]]

        assert found({"order": "asc"}) == ids
        assert found({"order": "asc", "after": ids[0], "limit": 2}) == ids[1:3]
        assert found({"metadata[n]": "3"}) == [ids[3]]
        assert found({"metadata[n]": "3", "metadata[m]": ""}) == []
        assert found({"state": "cancelled"}) == [ids[2]]
        assert found({"created_after": made[0]["created_at"], "order": "asc"}) == ids
        assert found({"created_before": made[0]["created_at"]}) == []
        for bad in ({"order": "up"}, {"limit": 0}, {"created_after": "nan"}, {"state": "asleep"}):
            assert client.get(path, params=bad).status_code == 422
        changed = client.request("PATCH", f"{path}/{ids[0]}", json={"metadata": {"n": None, "m": "x"}})
        assert (changed.status_code, changed.json()["metadata"]) == (200, {"m": "x"})
        for bad in ({"metadata": {"a": 1}}, {"metadata": {"a": "x" * 513}}, {"metadata": {"": "x"}}, {"more": 1}):
            assert client.request("PATCH", f"{path}/{ids[0]}", json=bad).status_code == 422
        many = {str(i): "" for i in range(17)}
        assert client.post(path, json={**body, "metadata": many}).status_code == 422
        assert client.request("PATCH", f"{path}/{ids[0]}", json={"metadata": many}).status_code == 422


def test_models_are_listed_by_name(client: Api, connections: Connections) -> None:
    for name in ("b", "a", "c"):
        register(connections, name)
    listed = client.get("/v1/models", params={"limit": 2}).json()
    assert ([model["name"] for model in listed["data"]], listed["has_more"]) == (["a", "b"], True)
    assert client.request("PATCH", "/v1/models/b", json={"metadata": {"k": "v"}}).json()["metadata"] == {"k": "v"}
    for asked, names in (({"after": "b"}, ["c"]), ({"order": "desc"}, ["c", "b", "a"]), ({"metadata[k]": "v"}, ["b"])):
        assert [model["name"] for model in client.get("/v1/models", params=asked).json()["data"]] == names
    assert client.request("PATCH", "/v1/models/none", json={"metadata": {}}).status_code == 404


def test_metrics_over_rounds(client: Api, connections: Connections, claim: JobClaim) -> None:
    log = EventLog(connections)
    for step in range(1, 12):
        data = {"meta_step": step, "total": 11, "support_loss": 1.0 / step, "staleness": None}
        log.append(claim.job.id, "round", data, generation=1)
    log.append(claim.job.id, "round", {"meta_step": 4, "support_loss": 9.0}, generation=1)
    log.append(claim.job.id, "evaluation", {"meta_step": 5, "accuracy": 0.5}, generation=1)
    path = f"/v1/jobs/{claim.job.id}/metrics"
    found = client.get(path).json()["curves"]
    assert found["held_out/accuracy"] == [[5, 0.5]]
    assert [step for step, _ in found["support_loss"]] == list(range(1, 12))
    assert found["support_loss"][3] == [4, 9.0], "the later word counts"
    assert set(found) == {"held_out/accuracy", "support_loss"}
    thin = client.get(path, params={"keys": ["support_loss"], "from_step": 3, "max_points": 3}).json()["curves"]
    assert [step for step, _ in thin["support_loss"]] == [3, 7, 11]
    assert set(thin) == {"support_loss"}
    assert client.get(path, params={"max_points": 0}).status_code == 422
    assert client.get("/v1/jobs/job_00000000000000000000/metrics").status_code == 404


def test_a_queued_job_says_what_it_waits_for(client: Api, connections: Connections, spec: dict[str, Any]) -> None:
    first, second = (client.post("/v1/jobs", json=spec).json() for _ in range(2))
    assert (first["queue_position"], first["queue_reason"]) == (1, "no supervisor is alive to run it")
    Fleet(connections).beat("supervisor", "s", 60)
    waiting = client.get(f"/v1/jobs/{second['id']}").json()
    assert (waiting["queue_position"], waiting["queue_reason"]) == (
        2,
        "1 queued before it, 0 running on 1 supervisor",
    )
    JobStore(connections).claim("s", 60)
    running = client.get(f"/v1/jobs/{first['id']}").json()
    assert (running["state"], running["queue_position"], running["queue_reason"]) == ("running", None, None)
    listed = client.get("/v1/jobs").json()["data"]
    assert [job["queue_reason"] for job in listed] == ["1 running on 1 supervisor", None]


def test_submit_list_get_cancel(client: Api, spec: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] == "queued"
    assert job["spec"]["training"]["rounds"] == 3
    assert job["spec"]["algorithm"]["inner_lr"] > 0
    assert client.get(answer.headers["location"]).json() == job
    second = client.post("/v1/jobs", json=spec).json()
    page = client.get("/v1/jobs", params={"limit": 1}).json()
    assert [one["id"] for one in page["data"]] == [second["id"]]
    assert page["has_more"] is True
    rest = client.get("/v1/jobs", params={"after": second["id"]}).json()
    assert [one["id"] for one in rest["data"]] == [job["id"]]
    for asked, state in (("pause", "paused"), ("pause", "paused"), ("resume", "queued"), ("resume", "queued")):
        answer = client.post(f"/v1/jobs/{job['id']}/{asked}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    for _ in range(2):
        cancelled = client.post(f"/v1/jobs/{job['id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    only = client.get("/v1/jobs", params={"state": "cancelled"}).json()
    assert [one["id"] for one in only["data"]] == [job["id"]]


def test_events_as_pages(client: Api, connections: Connections, claim: JobClaim) -> None:
    add_rounds(connections, claim, 5)
    path = f"/v1/jobs/{claim.job.id}/events"
    everything = client.get(path).json()
    assert everything["has_more"] is False
    first = client.get(path, params={"limit": 3}).json()
    assert first["has_more"] is True
    rest = client.get(path, params={"after": first["data"][-1]["id"]}).json()
    assert first["data"] + rest["data"] == everything["data"]
    assert client.get(path, params={"after": "nonsense"}).status_code == 422
    assert client.get("/v1/jobs/job_none/events").status_code == 404
    assert client.get("/v1/jobs/job_none/events", headers=STREAM).status_code == 404


def test_a_stream_ends_after_the_last_event(client: Api, connections: Connections, claim: JobClaim) -> None:
    def work() -> None:
        add_rounds(connections, claim, 300)
        finish(connections, claim)

    worker = threading.Thread(target=work)
    worker.start()
    answer = client.get(f"/v1/jobs/{claim.job.id}/events", headers=STREAM)
    worker.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = frames(answer.text)
    assert [event["data"]["meta_step"] for event in events if event["kind"] == "round"] == list(range(300))
    assert events[-1]["data"]["state"] == "succeeded"


def test_a_stream_resumes(client: Api, connections: Connections, claim: JobClaim) -> None:
    add_rounds(connections, claim, 4)
    finish(connections, claim)
    path = f"/v1/jobs/{claim.job.id}/events"
    events = frames(client.get(path, headers=STREAM).text)
    for cut in (0, 2, len(events) - 1):
        headers = STREAM | {"Last-Event-ID": events[cut]["id"]}
        assert frames(client.get(path, headers=headers).text) == events[cut + 1 :]
        assert frames(client.get(path, params={"after": events[cut]["id"]}, headers=STREAM).text) == events[cut + 1 :]
    assert client.get(path, headers=STREAM | {"Last-Event-ID": "1; DROP"}).status_code == 422


def test_sweeps(client: Api, spec: dict[str, Any]) -> None:
    space = {"algorithm.inner_lr": {"type": "loguniform", "low": 0.001, "high": 1}}
    answer = client.post("/v1/sweeps", json={"job": spec, "space": space})
    assert answer.status_code == 202
    sweep = answer.json()
    assert client.get(answer.headers["location"]).json()["id"] == sweep["id"]
    assert [one["id"] for one in client.get("/v1/sweeps").json()["data"]] == [sweep["id"]]
    assert client.post(f"/v1/sweeps/{sweep['id']}/cancel").json()["state"] == "cancelled"
    assert client.get("/v1/sweeps/sweep_none").status_code == 404
    bad = client.post("/v1/sweeps", json={"job": spec, "space": {"algorithm.nope": space["algorithm.inner_lr"]}})
    assert bad.status_code == 422
    assert "algorithm.nope" in bad.json()["detail"]


def test_catalogue_and_limits(client: Api) -> None:
    catalogue = client.get("/v1/catalog").json()
    assert "warpgrad" in [entry["name"] for entry in catalogue["algorithms"]]
    assert client.get("/v1/limits").json()["max_steps"] == 50


def test_readiness_names_what_is_down(client: Api, connections: Connections) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["down"] == ["supervisor", "adapters"]
    fleet = Fleet(connections)
    fleet.beat("supervisor", "s", 60)
    fleet.beat("adapter", "a", 60)
    fleet.beat("adapter", "b", 60)
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["parts"] == {"state_redis": "up", "replay_redis": "up", "supervisor": 1, "adapters": 2}


def test_metrics_have_bounded_labels(client: Api, connections: Connections, spec: dict[str, Any]) -> None:
    Counters(connections).add("gradients_dropped", 2)
    job = client.post("/v1/jobs", json=spec).json()
    for path in (f"/v1/jobs/{job['id']}", "/v1/jobs/job_other", "/random/1", "/random/2"):
        client.get(path)
    client.request("BREW", "/livez")
    text = client.get("/metrics").text
    assert 'route="/v1/jobs/{job_id}",status="200"' in text
    assert 'method="other"' in text
    assert 'route="unmatched",status="404"' in text
    assert "random" not in text
    assert job["id"] not in text
    assert 'warploom_jobs{place="queued"} 1.0' in text
    assert "warploom_gradients_dropped_total 2.0" in text


def test_openapi_describes_bodies_and_the_key(client: Api) -> None:
    document = client.get("/openapi.json").json()
    adapt = document["paths"]["/v1/models/{name}/adapt"]["post"]
    assert set(adapt["requestBody"]["content"]) >= {"application/json", "application/x-npz"}
    assert adapt["security"]
    assert "JobSpec" in document["components"]["schemas"]


def test_pages_load_nothing_from_elsewhere(client: Api) -> None:
    for page in ("/", "/docs"):
        answer = client.get(page)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        links = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert links
        for link in links:
            assert link.startswith("/")
            assert client.get(link).status_code == 200


def test_prometheus_sees_the_replay_of_running_jobs(client: Api, claim: JobClaim) -> None:
    text = client.get("/metrics").text
    for name in ("bytes", "units", "rejected", "samples_per_insert", 'blocked_seconds{side="rollouts"}'):
        assert f"warploom_replay_{name} 0.0" in text
