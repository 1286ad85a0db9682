"""Meta-SGD: learned step sizes for each element."""

from __future__ import annotations

import pytest
import torch

from tests.support.families import Noise, NoiseCurvesConfig
from tests.support.unrolled import assert_same, both_ways, meta_gradient, on, served_loss, slopes, some_tasks
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.configs.meta_sgd import MetaSGDConfig
from warploom.algorithms.maml import MAML
from warploom.algorithms.meta_sgd import MetaSGD
from warploom.functional import forward, task_loss
from warploom.models.configs.mlp import MLPConfig
from warploom.models.mlp import build_mlp


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("mlp", {}),
        ("mlp", {"inner_optimiser": {"name": "sgd", "momentum": 0.5, "weight_decay": 0.1}, "inner_batch": 5}),
        ("mlp", {"inner_optimiser": {"name": "adam", "eps": 0.01}}),
        ("warp mlp", {}),
        ("conv, norms by task", {}),
        ("conv, running", {}),
    ],
)
def test_gradients_of_start_and_rates_are_slopes_of_what_is_served(net, options):
    algorithm, meta = on(MetaSGD, MetaSGDConfig(inner_lr=0.2, inner_steps=3, **options), net)
    tasks = some_tasks(algorithm, 2)
    gradient = meta_gradient(algorithm, meta, tasks, (4, 5))
    assert set(gradient) == set(meta.params)
    rates = [name for name in gradient if name.startswith("lr:")]
    assert {name.removeprefix("lr:") for name in rates} == algorithm.adaptable
    for names in (None, rates):
        pairs = slopes(gradient, meta, lambda m: served_loss(algorithm, m, tasks, (4, 5)), names=names, directions=3)
        for along, expected in pairs:
            assert along == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_one_step_by_the_formula():
    """∂L_Q(θ − a ∘ g)/∂a = −g ∘ ∇L_Q(θ − a ∘ g), by plain autograd."""
    algorithm, meta = on(MetaSGD, MetaSGDConfig(inner_lr=0.3, inner_steps=1), "mlp")
    tasks = some_tasks(algorithm)

    def slope(params, x, y):
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        loss = task_loss("regression", forward(algorithm.model, leaves, x), y)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    theta = algorithm.start(meta.params)
    g = slope(theta, tasks.support_x[0], tasks.support_y[0])
    after = {name: theta[name] - meta.params[f"lr:{name}"] * g[name] for name in theta}
    outer = slope(after, tasks.query_x[0], tasks.query_y[0])
    gradient = meta_gradient(algorithm, meta, tasks)
    assert_same({n: gradient[f"lr:{n}"] for n in theta}, {n: -g[n] * outer[n] for n in theta})


@pytest.mark.parametrize("net", ["mlp", "warp mlp", "conv, norms by task"])
@pytest.mark.parametrize("options", [{}, {"truncate": 1}, {"inner_batch": 5}])
def test_with_rates_that_stay_it_is_maml(net, options):
    options = {"inner_lr": 0.2, "inner_steps": 3, **options}
    maml, start = on(MAML, MAMLConfig(**options), net)
    frozen, meta = on(MetaSGD, MetaSGDConfig(rates_lr=0, **options), net)
    rates = {name: torch.full_like(value, 0.2) for name, value in meta.params.items() if name.startswith("lr:")}
    assert_same(rates, {n: v.double() for n, v in frozen.init(1).params.items() if n in rates}, rtol=1e-7)
    meta = type(meta)(0, {**start.params, **rates})
    tasks = some_tasks(maml, 2)
    assert_same(meta_gradient(frozen, meta, tasks, (1, 2)), meta_gradient(maml, start, tasks, (1, 2)), rtol=1e-12)
    assert frozen.outer() == maml.outer()
    assert_same(frozen.adapt(meta, tasks, seeds=[1, 2]).params, maml.adapt(start, tasks, seeds=[1, 2]).params)


def test_a_step_size_asked_for_scales_the_learned_ones():
    algorithm, meta = on(MetaSGD, MetaSGDConfig(inner_lr=0.2), "mlp")
    tasks = some_tasks(algorithm, 3)
    moved = {
        lr: {
            name: value - meta.params[name]
            for name, value in algorithm.adapt(meta, tasks, seeds=[0, 1, 2], steps=1, lr=lr).params.items()
        }
        for lr in (None, 0.2, 0.1)
    }
    mixed = algorithm.adapt(meta, tasks, seeds=[0, 1, 2], steps=1, lr=[0.2, 0.1, 0.4]).params
    assert_same(moved[None], moved[0.2], rtol=0, atol=0)
    assert_same(moved[0.1], {name: value / 2 for name, value in moved[0.2].items()}, atol=1e-15)
    for name, value in moved[0.2].items():
        expected = meta.params[name] + value * torch.tensor([1.0, 0.5, 2.0]).view(-1, *[1] * (value.ndim - 1))
        torch.testing.assert_close(mixed[name], expected)


def test_rates_have_a_step_size_of_their_own():
    algorithm = MetaSGD(
        MetaSGDConfig(outer_lr=0.01, rates_lr=0.002),
        build_mlp(MLPConfig(hidden=(3,)), NoiseCurvesConfig()),
        Noise(NoiseCurvesConfig()),
    )
    rates = algorithm.outer().rates
    assert {rate for name, rate in rates.items() if name.startswith("lr:")} == {0.002}
    assert {rate for name, rate in rates.items() if not name.startswith("lr:")} == {0.01}


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = on(MetaSGD, MetaSGDConfig(inner_steps=3, inner_batch=5), net)
    tasks = some_tasks(algorithm, 3)

    def both():
        adapted = algorithm.adapt(meta, tasks, seeds=[1, 2, 3], lr=[0.1, 0.2, 0.3]).params
        return adapted, algorithm.rollout(meta, tasks, seeds=[1, 2, 3])

    (adapted, one), (looped, other) = both_ways(monkeypatch, both)
    assert_same(adapted, looped)
    for a, b in zip(one, other, strict=True):
        assert_same(a.gradient, b.gradient)
