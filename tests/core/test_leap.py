"""Leap's gradient against finite differences in float64, its variants, and its memory."""

from __future__ import annotations

import itertools
import weakref

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig, doubled
from tests.support.slopes import check_slope
from tests.support.unrolled import both_ways
from warploom.algorithms.configs.leap import LeapConfig
from warploom.algorithms.configs.reptile import ReptileConfig
from warploom.algorithms.leap import Leap
from warploom.algorithms.leap_path import PathGradient
from warploom.algorithms.reptile import Reptile
from warploom.inner import InnerStep
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.configs.mlp import MLPConfig
from warploom.models.conv4 import build_conv4
from warploom.models.mlp import build_mlp
from warploom.types import TaskRef

REFS = [TaskRef("train", i, 0) for i in range(3)]


def make(image=False, kind=Leap, config=LeapConfig, **options):
    task = NoiseImagesConfig() if image else NoiseCurvesConfig()
    net = (
        build_conv4(Conv4Config(layers=2, filters=3, activation="tanh"), task)
        if image
        else build_mlp(MLPConfig(hidden=(5, 4), activation="tanh"), task)
    )
    algorithm = kind(config(**{"inner_lr": 0.2, "inner_steps": 4, **options}), net, Noise(task))
    return algorithm, doubled(algorithm.init(1))


def plain_loss(algorithm, theta, x, y):
    out = functional_call(algorithm.model.module, theta, (x,))
    return F.cross_entropy(out, y) if algorithm.model.kind == "classification" else ((out - y) ** 2).mean()


def plain_path(algorithm, theta, x, y):
    """θ_0..θ_K and L_0..L_K of gradient descent by the ordinary autograd, apart from the code under test."""
    thetas, losses = [], []
    for _ in range(algorithm.config.inner_steps + 1):
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        value = plain_loss(algorithm, leaves, x, y)
        slopes = torch.autograd.grad(value, list(leaves.values()))
        thetas.append(theta)
        losses.append(value.detach())
        theta = {n: v - algorithm.config.inner_lr * g for (n, v), g in zip(theta.items(), slopes, strict=True)}
    return thetas, losses


def pull_forward(algorithm, thetas, losses, x, y, *, p, with_loss):
    """C as a function of one shift of all θ_k, their forward points held: what ∂θ_k/∂θ_0 = I says of C."""

    def objective(moved):
        total = 0.0
        for k in range(len(thetas) - 1):
            own = {n: thetas[k][n] + moved[n] - thetas[0][n] for n in moved}
            square = sum(((thetas[k + 1][n] - own[n]) ** 2).sum() for n in own)
            if with_loss:
                square = square + (losses[k + 1] - plain_loss(algorithm, own, x, y)) ** 2
            total += float(square.sqrt() ** p)
        return total

    return objective


@pytest.mark.parametrize("uphill", [False, True])
@pytest.mark.parametrize("with_loss", [True, False])
@pytest.mark.parametrize("metric", ["length", "energy"])
@pytest.mark.parametrize("image", [False, True])
def test_the_gradient_is_that_of_finite_differences_of_the_pull_forward_objective(image, metric, with_loss, uphill):
    lr = (8.0 if image else 2.0) if uphill else 0.2
    algorithm, meta = make(image, metric=metric, loss_term=with_loss, stabilise=False, inner_lr=lr)
    tasks = algorithm.family.sample(REFS[:1])
    x, y = tasks.support_x[0], tasks.support_y[0]
    thetas, losses = plain_path(algorithm, meta.params, x, y)
    rises = [float(b - a) for a, b in itertools.pairwise(losses)]
    assert (max(rises) > 0) == uphill
    got = algorithm.rollout(meta, tasks, seeds=[0])[0]
    p = 1 if metric == "length" else 2
    objective = pull_forward(algorithm, thetas, losses, x, y, p=p, with_loss=with_loss)
    assert set(got.gradient) == algorithm.adaptable
    check_slope(objective, meta.params, got.gradient, h=1e-6)
    assert got.metrics["path"] == pytest.approx(objective(meta.params), rel=1e-9)


def test_the_stabiliser_is_idle_where_every_step_goes_down():
    stable, meta = make(inner_lr=0.05)
    free, _ = make(inner_lr=0.05, stabilise=False)
    tasks = stable.family.sample(REFS)
    for one, other in zip(
        stable.rollout(meta, tasks, seeds=[0, 1, 2]), free.rollout(meta, tasks, seeds=[0, 1, 2]), strict=True
    ):
        for name, value in one.gradient.items():
            torch.testing.assert_close(value, other.gradient[name], rtol=1e-12, atol=0)


# One step from w = 0 with slope 2, loss 1 to w = −3 with loss 5: Δw = −3, ΔL = 4.
@pytest.mark.parametrize(
    ("with_loss", "metric", "stabilise", "gradient", "path"),
    [
        (True, "length", True, -(-3 + -4 * 2) / 5, 5),
        (True, "length", False, -(-3 + 4 * 2) / 5, 5),
        (True, "energy", True, -2 * (-3 + -4 * 2), 25),
        (True, "energy", False, -2 * (-3 + 4 * 2), 25),
        (False, "length", True, 1, 3),
        (False, "energy", False, 6, 9),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_uphill_step_by_hand(with_loss, metric, stabilise, gradient, path, shape):
    one = torch.ones(1, *shape, dtype=torch.float64)
    found = PathGradient(with_loss=with_loss, metric=metric, stabilise=stabilise)
    found.add(InnerStep(0, {"w": 0 * one}, {"w": 2 * one}, torch.tensor([1.0], dtype=torch.float64)))
    found.add(InnerStep(1, {"w": -3 * one}, {}, torch.tensor([5.0], dtype=torch.float64)))
    assert float(found.gradient_T["w"]) == pytest.approx(gradient)
    assert float(found.length_T) == pytest.approx(path)


def test_energy_without_loss_is_reptile_times_two():
    leap, meta = make(metric="energy", loss_term=False, stabilise=False, inner_batch=3)
    reptile, _ = make(kind=Reptile, config=ReptileConfig, inner_batch=3)
    tasks = leap.family.sample(REFS)
    pairs = zip(leap.rollout(meta, tasks, seeds=[1, 2, 3]), reptile.rollout(meta, tasks, seeds=[1, 2, 3]), strict=True)
    for ours, theirs in pairs:
        for name, value in ours.gradient.items():
            torch.testing.assert_close(value, 2 * theirs.gradient[name], rtol=1e-9, atol=1e-12)


def test_one_step_without_loss_has_length_one():
    algorithm, meta = make(inner_steps=1, loss_term=False)
    gradient = algorithm.rollout(meta, algorithm.family.sample(REFS[:1]), seeds=[0])[0].gradient
    assert float(torch.stack([g.square().sum() for g in gradient.values()]).sum()) == pytest.approx(1.0, rel=1e-12)


def test_a_path_that_stands_still_pulls_nowhere():
    rest = torch.ones(1, 2, dtype=torch.float64)
    found = PathGradient(with_loss=False)
    for k in range(3):
        found.add(InnerStep(k, {"w": rest}, {"w": 0 * rest}, torch.zeros(1, dtype=torch.float64)))
    assert torch.equal(found.gradient_T["w"], 0 * rest)


@pytest.mark.parametrize("optimiser", [{"name": "sgd", "momentum": 0.9}, {"name": "adam"}])
def test_any_inner_optimiser_gives_its_own_path(optimiser):
    algorithm, meta = make(inner_optimiser=optimiser, loss_term=False, inner_lr=0.01, inner_steps=3)
    tasks = algorithm.family.sample(REFS[:1])
    got = algorithm.rollout(meta, tasks, seeds=[0])[0].gradient
    ends = [algorithm.adapt(meta, tasks, seeds=[0], steps=k).params for k in range(4)]
    expected = {name: torch.zeros_like(value) for name, value in got.items()}
    for before, after in itertools.pairwise(ends):
        moved = {name: after[name][0] - before[name][0] for name in expected}
        norm = torch.stack([m.square().sum() for m in moved.values()]).sum().sqrt()
        expected = {name: value - moved[name] / norm for name, value in expected.items()}
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("image", [False, True])
def test_vectorised_equals_loop(image, monkeypatch):
    algorithm, meta = make(image, inner_batch=5)
    tasks = algorithm.family.sample(REFS)
    vectorised, looped = both_ways(monkeypatch, lambda: algorithm.rollout(meta, tasks, seeds=[1, 2, 3]))
    for one, other in zip((e.gradient for e in vectorised), (e.gradient for e in looped), strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-8, atol=1e-10)


def test_memory_does_not_grow_with_the_path(monkeypatch):
    """At most two states of a path are alive at a time, and the one in the making."""
    algorithm, meta = make(inner_steps=30)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0
    add = PathGradient.add

    def watched(self, step):
        nonlocal most
        alive.add(step.theta_T["layer0.weight"])
        add(self, step)
        most = max(most, len(alive))

    monkeypatch.setattr(PathGradient, "add", watched)
    algorithm.rollout(meta, algorithm.family.sample(REFS), seeds=[1, 2, 3])
    assert 1 <= most <= 3


def test_only_the_initialisation_moves():
    algorithm, meta = make(outer_lr=0.3, outer="sgd", clip_norm=2.0)
    outer = algorithm.outer(5)
    assert (outer.kind, outer.clip_norm) == ("sgd", 2.0)
    assert outer.rates == dict.fromkeys(meta.params, 0.3)
