"""A sweep on Ray Tune: trials with curves, the best as a model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Service
from tests.support.waiting import wait_until
from warploom.records import FINAL_STATES
from warploom.spec import SweepSpec

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


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_trials_have_curves_and_the_best_becomes_a_model(service: Service, search: str) -> None:
    sweep_id = service.sweeps.create(sweep(search=search)).id
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


def test_a_sweep_can_be_cancelled(service: Service) -> None:
    long = sweep()
    document = long.to_json()
    document["job"]["training"]["rounds"] = 100_000
    sweep_id = service.sweeps.create(SweepSpec.model_validate(document)).id
    wait_until(lambda: service.sweeps.get(sweep_id).trials, 90)
    service.sweeps.cancel(sweep_id)
    wait_until(lambda: service.sweeps.get(sweep_id).state in FINAL_STATES, 60)
    assert service.sweeps.get(sweep_id).state == "cancelled"
