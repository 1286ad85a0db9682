from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from warploom.errors import InvalidInput
from warploom.tasks.configs.sinusoid import SinusoidConfig
from warploom.tasks.sinusoid import Sinusoid
from warploom.types import TaskRef


def refs(count: int) -> list[TaskRef]:
    return [TaskRef("train", i, 4) for i in range(count)]


def test_amplitude_and_phase_fit_every_point_and_their_ranges() -> None:
    tasks = Sinusoid(SinusoidConfig(shots=20, queries=30)).sample(refs(400))
    x = torch.cat([tasks.support_x, tasks.query_x], dim=1).double()
    y = torch.cat([tasks.support_y, tasks.query_y], dim=1).double()
    basis = torch.cat([x.sin(), x.cos()], dim=-1)
    solution = torch.linalg.lstsq(basis, y).solution
    assert (basis @ solution - y).abs().max() < 1e-4
    amplitude = solution.norm(dim=1).squeeze()
    phase = torch.atan2(solution[:, 1, 0], solution[:, 0, 0])
    for value, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi), (x, -5.0, 5.0)):
        assert low - 1e-4 <= value.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < value.max() <= high + 1e-4
    assert abs(amplitude.mean() - 2.55) < 0.25
    assert abs(phase.mean() - math.pi / 2) < 0.15


def test_points_are_in_no_order_and_support_and_query_differ() -> None:
    tasks = Sinusoid(SinusoidConfig()).sample(refs(3))
    assert not torch.equal(tasks.support_x, tasks.support_x.sort(dim=1).values)
    assert not set(tasks.support_x.flatten().tolist()) & set(tasks.query_x.flatten().tolist())


def test_splits_and_seeds_are_different_streams() -> None:
    family = Sinusoid(SinusoidConfig())
    names = [TaskRef("train", 0, 1), TaskRef("test", 0, 1), TaskRef("validation", 0, 1), TaskRef("train", 0, 2)]
    assert len({task.numpy().tobytes() for task in family.sample(names).support_y}) == 4
    assert family.size("train") is None


def test_augment_does_nothing() -> None:
    x_B = torch.rand(4, 1)
    assert Sinusoid(SinusoidConfig()).augment(x_B, torch.Generator()) is x_B


def test_no_refs_and_a_crossed_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no task"):
        Sinusoid(SinusoidConfig()).sample([])
    with pytest.raises(ValidationError, match=r"amplitude_min must be at most amplitude_max; got amplitude_min=6"):
        SinusoidConfig(amplitude_min=6, amplitude_max=5)
