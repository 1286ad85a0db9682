"""`continual-sine`: sub-intervals in their order, the mixture by regression, scores by sub-task."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from tests.support.tasks import check_function_of_the_ref, make
from warploom.inner import SupportBatches
from warploom.tasks.configs.continual_sine import ContinualSineConfig
from warploom.tasks.continual_sine import ContinualSine
from warploom.types import TaskRef

SMALL = {"name": "continual-sine", "shots": 4, "queries": 3}


def test_a_task_is_a_function_of_its_ref():
    check_function_of_the_ref(SMALL)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (1, 3, 4, 2, 0)])
def test_points_lie_in_the_sub_intervals_in_their_order(order):
    family = ContinualSine(ContinualSineConfig(shots=30, queries=20, order=order))
    tasks = family.sample([TaskRef("train", i, 2) for i in range(20)])
    assert tasks.support_x.shape == tasks.support_y.shape == (20, 150, 1)
    assert tasks.query_x.shape == tasks.query_y.shape == (20, 100, 1)
    for x in (tasks.support_x, tasks.query_x):
        parts = x.view(20, 5, -1)
        for phase, interval in enumerate(order):
            part = parts[:, phase]
            assert -5 + 2 * interval <= part.min() < -4.95 + 2 * interval
            assert -3.05 + 2 * interval < part.max() <= -3 + 2 * interval


def test_the_order_changes_the_order_and_nothing_else():
    ref = [TaskRef("test", 0, 1)]
    plain = ContinualSine(ContinualSineConfig(shots=4, queries=3)).sample(ref)
    other = ContinualSine(ContinualSineConfig(shots=4, queries=3, order=(1, 3, 4, 2, 0))).sample(ref)
    for column in ("support_x", "support_y", "query_x", "query_y"):
        first, second = (getattr(tasks, column).view(5, -1) for tasks in (plain, other))
        assert torch.equal(second, first[[1, 3, 4, 2, 0]])


def test_targets_are_a_mixture_of_two_waves():
    fixed = {"amplitude_min": 1.5, "amplitude_max": 1.5, "frequency_min": 1.25, "frequency_max": 1.25}
    family = ContinualSine(ContinualSineConfig(shots=20, **fixed))
    tasks = family.sample([TaskRef("train", i, 0) for i in range(50)])
    x, y = tasks.support_x.double(), tasks.support_y.double()
    basis = torch.cat([(1.25 * x).sin(), (1.25 * x).cos()], -1)
    solution = torch.linalg.lstsq(basis, y).solution
    assert (basis @ solution - y).abs().max() < 1e-5
    # m A sin(ωx + φ_1) + (1 − m) A sin(ωx + φ_2) is one wave of amplitude at most A.
    amplitude = solution.norm(dim=1)
    assert amplitude.max() <= 1.5 + 1e-5
    assert amplitude.std() > 0.1


def test_two_frequencies_are_at_work():
    family = ContinualSine(ContinualSineConfig(shots=40))
    x, y = family.sample([TaskRef("train", 1, 0)]).support_x[0].double(), None
    y = family.sample([TaskRef("train", 1, 0)]).support_y[0].double()
    grid = torch.linspace(0.5, 2.0, 151, dtype=torch.float64)

    def residual(*frequencies):
        basis = torch.cat([f(w * x) for w in frequencies for f in (torch.sin, torch.cos)], -1)
        return float((basis @ torch.linalg.lstsq(basis, y).solution - y).square().mean().sqrt())

    one = min(residual(w) for w in grid)
    two = min(residual(v, w) for i, v in enumerate(grid[::3]) for w in grid[::3][i + 1 :])
    assert two < 0.05 * one
    assert one > 0.01


def test_phases_reach_the_batches():
    family = make(SMALL)
    assert family.phases == family.config.phases == 5
    tasks = family.sample([TaskRef("train", 0, 0)])
    batches = SupportBatches(
        tasks.support_x, tasks.support_y, size=None, augment=family.augment, seeds=[0], phases=family.phases, steps=100
    )
    means = torch.stack([batches.next()[0].mean() for _ in range(100)]).view(5, 20)
    assert bool((means == means[:, :1]).all())
    assert torch.equal((means[:, 0] / 2).round(), torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))


def test_scores_tell_the_sub_tasks_apart():
    y = torch.zeros(10, 1)
    outputs = torch.tensor([1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 3.0, 3.0, 4.0, 0.0]).unsqueeze(1)
    found = make(SMALL).scores(outputs, y)
    assert [found[f"loss_task{i}"] for i in range(5)] == [1.0, 4.0, 0.0, 9.0, 8.0]
    assert found["loss"] == pytest.approx(22 / 5)
    assert math.isfinite(found["nrmse"])


def test_configs_refuse_what_cannot_be():
    for order in ((0, 1, 2, 3), (0, 1, 2, 3, 3), (1, 2, 3, 4, 5)):
        with pytest.raises(ValidationError, match="order must hold each of 0, 1, 2, 3, 4 once"):
            ContinualSineConfig(order=order)
    with pytest.raises(ValidationError, match="frequency_min must be at most frequency_max"):
        ContinualSineConfig(frequency_min=3)
