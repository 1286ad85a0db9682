"""A sweep on Ray Tune: trials with curves, the best as a model."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest

from service.connection import Connections
from service.settings import Settings
from service.trials import TrialFiles
from tests.integration.conftest import Service
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until
from warploom.records import FINAL_STATES
from warploom.spec import SweepSpec
from warploom.training import unpack_state

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def sweep(**changes: Any) -> SweepSpec:
    return SweepSpec.model_validate(
        {
            "name": "swept",
            "job": {
                "algorithm": {"name": "warpgrad", "inner_lr": 0.01, "inner_steps": 3, "points_per_update": 16},
                "task": "sinusoid",
                "model": {"name": "warp_mlp", "hidden": [8]},
                "training": {"rounds": 2, "meta_batch": 4, "unit": 4},
                "evaluation": {"every": 1, "tasks": 4},
            },
            "space": {"algorithm.inner_lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
            "num_samples": 3,
            "scheduler": "none",
            **changes,
        }
    )


def test_trials_have_curves_and_the_best_becomes_a_model(service: Service) -> None:
    sweep_id = service.sweeps.create(sweep(search="optuna")).id
    wait_until(lambda: service.sweeps.get(sweep_id).state in FINAL_STATES, 150)
    done = service.sweeps.get(sweep_id)
    assert done.state == "succeeded", done.error
    assert len(done.trials) == 3
    for trial in done.trials:
        assert trial.state == "succeeded"
        assert 1e-4 <= trial.parameters["algorithm.inner_lr"] <= 1e-2
        assert [row["meta_step"] for row in trial.curve] == [0, 1, 2]
        assert trial.best == min(row["loss"] for row in trial.curve)
    best = min(done.trials, key=lambda trial: trial.best or 0.0)
    assert done.best_trial == best.id
    model = service.models.get("swept")
    assert model.metrics["loss"] == best.best
    assert model.spec["algorithm"]["inner_lr"] == best.parameters["algorithm.inner_lr"]
    assert model.default_lr == best.parameters["algorithm.inner_lr"]
    assert model.sweep == sweep_id


def long() -> SweepSpec:
    document = sweep(max_concurrent=2).to_json()
    document["job"]["training"]["rounds"] = 100_000
    document["job"]["evaluation"]["every"] = 50_000
    return SweepSpec.model_validate(document)


def test_a_sweep_rests_goes_on_with_another_supervisor_and_is_stopped_with_a_model(service: Service) -> None:
    sweep_id = service.sweeps.create(long()).id

    def trials(state: str) -> int:
        return sum(trial.state == state and bool(trial.curve) for trial in service.sweeps.get(sweep_id).trials)

    wait_until(lambda: trials("running") == 2, 90)
    service.sweeps.pause(sweep_id)
    wait_until(lambda: service.sweeps.get(sweep_id).state == "paused", 60)
    rested = service.sweeps.get(sweep_id).trials
    assert [(trial.id, trial.state) for trial in rested] == [("00000", "paused"), ("00001", "paused")]
    service.stop()
    service.start()
    service.sweeps.resume(sweep_id)
    wait_until(lambda: trials("running") == 2, 90)
    service.sweeps.stop(sweep_id)
    wait_until(lambda: service.sweeps.get(sweep_id).state in FINAL_STATES, 60)
    done = service.sweeps.get(sweep_id)
    assert (done.state, done.generation) == ("succeeded", 2)
    assert [(trial.id, trial.state) for trial in done.trials] == [("00000", "stopped"), ("00001", "stopped")], (
        done.trials
    )
    for before, trial in zip(rested, done.trials, strict=True):
        assert trial.parameters == before.parameters
        assert trial.curve[0]["meta_step"] == 0 and trial.curve[-1]["meta_step"] > 0
    model = service.models.get("swept")
    assert model.metrics["loss"] == min(trial.best or 0.0 for trial in done.trials)
    assert model.sweep == sweep_id


def test_trials_that_end_while_the_state_server_is_away_are_told_afterwards(
    ray_cluster: None, connections: Connections, redis_settings: Settings
) -> None:
    with Proxy(redis_settings.state_url) as proxy, ExitStack() as ends:
        changes = {"state_url": proxy.url, "adapters": 0, "heartbeat_s": 0.3, "lease_s": 20.0}
        service = Service(connections, redis_settings.model_copy(update=changes), threading.Event())
        service.start()
        ends.callback(service.stop)
        document = sweep(num_samples=2, max_concurrent=2, search="random").to_json()
        document["job"]["training"] |= {"rounds": 60, "checkpoint_every": 1}
        document["job"]["evaluation"]["every"] = 20
        sweep_id = service.sweeps.create(SweepSpec.model_validate(document)).id

        def round_of(trial_id: str) -> int:
            blobs = TrialFiles(service.settings, sweep_id, trial_id).load()
            return unpack_state(blobs).meta.version if blobs else 0

        wait_until(lambda: all(round_of(one) for one in ("00000", "00001")), 90)
        proxy.away(True)
        assert min(map(round_of, ("00000", "00001"))) < 60
        wait_until(lambda: all(round_of(one) == 60 for one in ("00000", "00001")), 90)
        assert any(trial.state == "running" for trial in service.sweeps.get(sweep_id).trials)
        proxy.away(False)
        wait_until(lambda: service.sweeps.get(sweep_id).state in FINAL_STATES, 60)
        done = service.sweeps.get(sweep_id)
        assert (done.state, done.generation) == ("succeeded", 1), done.error
        for trial in done.trials:
            assert trial.state == "succeeded"
            assert [row["meta_step"] for row in trial.curve] == [0, 20, 40, 60]
        assert service.models.get("swept").sweep == sweep_id


def test_a_sweep_can_be_cancelled(service: Service) -> None:
    sweep_id = service.sweeps.create(long()).id
    wait_until(lambda: service.sweeps.get(sweep_id).trials, 90)
    service.sweeps.cancel(sweep_id)
    wait_until(lambda: service.sweeps.get(sweep_id).state in FINAL_STATES, 60)
    assert service.sweeps.get(sweep_id).state == "cancelled"
