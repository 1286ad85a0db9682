"""Sweeps over the API: what they are asked for, and trials that become models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.connection import Connections
from service.settings import Settings
from service.sweeps import SweepStore
from service.trials import TrialFiles
from tests.api.conftest import Api
from tests.api.test_errors import problem
from warploom.records import Sweep, Trial
from warploom.spec import JobSpec
from warploom.wire import encode

CURVE = [{"meta_step": 0.0, "loss": 2.0}, {"meta_step": 2.0, "loss": 0.5}, {"meta_step": 3.0, "loss": 0.7}]


@pytest.fixture
def begun(client: Api, connections: Connections, spec: dict[str, Any]) -> Sweep:
    """A sweep that runs."""
    space = {"algorithm.inner_lr": {"type": "loguniform", "low": 0.01, "high": 0.1}}
    sent = client.post("/v1/sweeps", json={"name": "swept", "job": spec, "space": space})
    assert sent.status_code == 202
    claim = SweepStore(connections).claim("test", 60)
    assert claim is not None
    return claim.sweep


def measure(connections: Connections, settings: Settings, sweep: Sweep, trial_id: str, scale: float = 1.0) -> None:
    """A trial with three evaluations, the second of which is the best."""
    curve = [{**row, "loss": scale * row["loss"]} for row in CURVE]
    trial = Trial(id=trial_id, state="running", parameters={}, curve=curve, best=scale * 0.5)
    SweepStore(connections).put_trial(sweep.id, sweep.generation, trial)
    header = {"version": 2, "spec": JobSpec.parse(sweep.spec["job"]).to_json()}
    weights = {"p/a": np.full((2, 3), scale), "p/b": np.zeros(4), "s/mean": np.zeros(9)}
    TrialFiles(settings, sweep.id, trial_id).put_best(encode("model", weights, header))


def test_a_sweep_is_controlled_like_a_job(client: Api, begun: Sweep) -> None:
    path = f"/v1/sweeps/{begun.id}"
    for action, state in (("pause", "pausing"), ("pause", "pausing"), ("resume", "running"), ("stop", "stopping")):
        answer = client.post(f"{path}/{action}")
        assert (answer.status_code, answer.json()["state"]) == (200, state), action
    for action in ("pause", "resume"):
        document = problem(client.post(f"{path}/{action}"), 409, "conflict")
        assert document["errors"][0]["value"] == "stopping"
    assert client.post(f"{path}/cancel").json()["state"] == "cancelling"
    assert [step["state"] for step in client.get(path).json()["transitions"]][:2] == ["queued", "running"]
    for action in ("pause", "resume", "stop", "promote"):
        absent = client.post(f"/v1/sweeps/sweep_00000000000000000000/{action}", json={})
        assert absent.status_code == 404, action


def test_the_best_trial_becomes_a_model_while_the_sweep_runs(
    client: Api, begun: Sweep, connections: Connections, settings: Settings
) -> None:
    path = f"/v1/sweeps/{begun.id}/promote"
    assert problem(client.post(path, json={}), 409, "conflict")["errors"][0]["pointer"] == "/trial"
    measure(connections, settings, begun, "00000")
    measure(connections, settings, begun, "00001", scale=0.5)
    model = client.post(path, json={"alias": "stable"}).json()
    assert (model["name"], model["version"], model["aliases"]) == ("swept", 1, ["latest", "stable"])
    assert (model["sweep"], model["parameters"], model["default_steps"]) == (begun.id, 10, 20)
    assert model["metrics"] == {"meta_step": 2.0, "loss": 0.25}, "those of the version that was kept"
    assert client.post(path, json={}).json()["version"] == 1, "a repeat gives what is there"
    other = client.post(path, json={"trial": "00000", "name": "second-best"}).json()
    assert (other["name"], other["metrics"]["loss"]) == ("second-best", 0.5)
    assert client.post(path, json={"trial": "00000"}).json()["version"] == 2
    assert client.get("/v1/models/swept@stable").json()["version"] == 1


def test_what_cannot_be_promoted_is_refused(
    client: Api, begun: Sweep, connections: Connections, settings: Settings
) -> None:
    path = f"/v1/sweeps/{begun.id}/promote"
    new = Trial(id="00007", state="running", parameters={})
    SweepStore(connections).put_trial(begun.id, 1, new)
    assert problem(client.post(path, json={"trial": "00007"}), 409, "conflict")["errors"][0]["value"] == "00007"
    assert problem(client.post(path, json={"trial": "../7"}), 404, "not_found")["errors"][0]["pointer"] == "/trial"
    for bad in ({"name": "a/b"}, {"alias": "7"}, {"trail": "00007"}):
        assert client.post(path, json=bad).status_code == 422, bad
    measured = new.model_copy(update={"curve": CURVE, "best": 0.5})
    SweepStore(connections).put_trial(begun.id, 1, measured)
    assert "checkpoint_url" in problem(client.post(path, json={}), 503, "unavailable")["detail"]
    assert client.get("/v1/models").json()["data"] == []


def test_a_sweeps_history_is_paged_and_streamed(
    client: Api, begun: Sweep, connections: Connections, settings: Settings
) -> None:
    path = f"/v1/sweeps/{begun.id}/events"
    measure(connections, settings, begun, "00000")
    found = client.get(path).json()["data"]
    assert [event["kind"] for event in found] == ["state", "state", "trial"]
    assert found[2]["data"] == {"trial": "00000", "state": "running", "best": 0.5, "meta_step": 3.0}
    assert client.get(path, params={"after": found[1]["id"]}).json()["data"] == found[2:]
    SweepStore(connections).finish(begun.id, begun.generation, "succeeded", best_trial="00000")
    frames = client.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": found[1]["id"]}).text
    assert frames.count("event: trial") == frames.count("event: state") == 1
    for wrong in (f"/v1/jobs/{begun.id}/events", "/v1/sweeps/job_00000000000000000000/events"):
        assert client.get(wrong).status_code == 404, wrong


def test_another_tenants_sweep_is_not_there(client: Api, begun: Sweep) -> None:
    secret = client.post("/v1/keys", json={"name": "b", "tenant": "other"}).json()["secret"]
    for action in ("pause", "resume", "stop", "cancel", "promote"):
        assert client.as_key(secret).post(f"/v1/sweeps/{begun.id}/{action}", json={}).status_code == 404, action
    assert client.get(f"/v1/sweeps/{begun.id}").json()["state"] == "running"
