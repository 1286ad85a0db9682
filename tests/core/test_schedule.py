"""Outer step sizes that fall over the rounds."""

from __future__ import annotations

import pytest
import torch

from warploom.local import train
from warploom.spec import JobSpec, TrainingSpec


def trained(rounds, schedule):
    document = {
        "algorithm": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 3, "outer": "sgd", "outer_lr": 0.5},
        "task": "sinusoid",
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"rounds": rounds, "meta_batch": 2, "schedule": schedule},
        "evaluation": {"every": 100, "tasks": 1},
    }
    return train(JobSpec.parse(document)).meta.params


@pytest.mark.parametrize(("schedule", "second"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)])
def test_the_second_of_two_rounds_goes_so_far(schedule, second):
    start, first, plain, end = trained(0, schedule), trained(1, schedule), trained(2, "constant"), trained(2, schedule)
    for name, value in end.items():
        assert not torch.equal(first[name], start[name])
        torch.testing.assert_close(value - first[name], second * (plain[name] - first[name]), rtol=1e-3, atol=1e-6)


def test_the_factor_starts_at_one_and_falls_to_nothing():
    for schedule in ("linear", "cosine"):
        factors = [TrainingSpec(rounds=50, schedule=schedule).step_scale(version) for version in range(51)]
        assert factors[0] == 1.0
        assert factors[25] == pytest.approx(0.5)
        assert factors[50] == pytest.approx(0.0)
        assert sorted(factors, reverse=True) == factors


def test_no_rounds_have_a_factor_too():
    assert TrainingSpec(rounds=0, schedule="linear").step_scale(0) == 1.0
