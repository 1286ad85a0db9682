"""Statistics of activations around warp layers."""

from __future__ import annotations

import pytest
import torch

from warploom.build import build
from warploom.reproduce.activations import NAMES, around_warps, statistics
from warploom.spec import JobSpec
from warploom.types import TaskRef


def test_white_noise_is_centred_uncorrelated_and_even():
    h = torch.randn(200, 4, 25, generator=torch.Generator().manual_seed(0))
    assert all(value < 0.02 for value in statistics(h).values())


def test_each_number_answers_to_its_own_cause():
    h = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    assert statistics(h + 3.0)["centre"] == pytest.approx((9 / 10) ** 0.5, abs=0.01)
    mixed = h @ torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    assert statistics(mixed)["correlation"] == pytest.approx(0.6, abs=0.03)
    uneven = h * torch.tensor([1.0, 3.0])
    assert statistics(uneven)["spread"] == pytest.approx(4 / 5, abs=0.03)
    assert statistics(uneven)["correlation"] < 0.05


def test_a_dead_channel_is_no_pair():
    h = torch.randn(50, 3, 4)
    h[:, 1] = 0.0
    assert statistics(h)["correlation"] == pytest.approx(statistics(h[:, [0, 2]])["correlation"])


def test_layers_are_seen_as_the_adapted_net_computes_them():
    document = {
        "algorithm": {"name": "warpgrad", "inner_steps": 2, "inner_lr": 0.1},
        "task": {"name": "glyphs", "ways": 3, "shots": 2, "queries": 2, "image_size": 16, "alphabets": 4},
        "model": {"name": "warp_conv4", "layers": 2, "filters": 4},
    }
    algorithm = build(JobSpec.parse(document))
    meta, refs = algorithm.init(0), [TaskRef("test", 0, 1), TaskRef("test", 1, 1)]
    found = around_warps(algorithm, meta, refs)
    assert list(found) == ["warp0", "warp1"]
    assert found["warp0"].keys() == {
        f"{s} {w}" for s in ("centre", "correlation", "spread") for w in ("before", "after")
    }
    # A warp that doubles and mixes nothing keeps all three.
    doubled = dict(meta.params)
    for name in algorithm.model.names("warp"):
        doubled[name] = torch.zeros_like(doubled[name])
        if name.endswith("weight"):
            doubled[name][range(4), range(4), 1, 1] = 2.0
    same = around_warps(algorithm, type(meta)(meta.version, doubled, meta.stats), refs)
    for layer in same.values():
        for what in NAMES:
            assert layer[f"{what} after"] == pytest.approx(layer[f"{what} before"], rel=1e-4)


def test_a_net_without_warp_layers_has_none():
    document = {"algorithm": {"name": "leap", "inner_steps": 1}, "task": "sinusoid", "model": "mlp"}
    algorithm = build(JobSpec.parse(document))
    assert around_warps(algorithm, algorithm.init(0), [TaskRef("test", 0, 1)]) == {}
