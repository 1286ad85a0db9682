"""Reptile by hand, by its expansion in small steps, and its outer rule."""

from __future__ import annotations

import pytest
import torch

from tests.support.expansion import Quadratic, Quadratics, QuadraticsConfig, expansion
from tests.support.unrolled import assert_same, both_ways, meta_gradient, on, some_tasks
from warploom.algorithms.configs.reptile import ReptileConfig
from warploom.algorithms.reptile import Reptile
from warploom.learner import LearnerState, learn_round
from warploom.types import MetaState


def on_quadratics(losses, phi, **options):
    family = Quadratics(QuadraticsConfig(dimension=len(phi), steps=len(losses)))
    algorithm = Reptile(ReptileConfig(inner_steps=len(losses), **options), family.model(), family)
    return algorithm, MetaState(0, {"theta": phi}), family.tasks(losses, losses[-1:])


def test_two_steps_by_hand():
    """L_1 = ½ 2 (θ − 1)², then L_2 = ½ 4 (θ + 1)², α = 1/4, from 3: slope 4, to 2; slope 12, to −1."""
    one = torch.ones(1, 1, dtype=torch.float64)
    losses = [Quadratic(2 * one, one[0]), Quadratic(4 * one, -one[0])]
    algorithm, meta, tasks = on_quadratics(losses, 3 * one[0], inner_lr=0.25, outer_lr=0.5)
    (experience,) = algorithm.rollout(meta, tasks, seeds=[0])
    assert float(experience.gradient["theta"]) == 4.0
    assert (experience.metrics["support_loss_first"], experience.metrics["support_loss"]) == (4.0, 0.0)
    after, _ = learn_round(algorithm, LearnerState(meta), [experience], seed=0)
    assert float(after.meta.params["theta"]) == 1.0  # half way from 3 to −1


@pytest.mark.parametrize("k", [2, 3])
def test_expansion_in_average_gradient_and_average_inner_product(k):
    """g/α is k AvgGrad − ½ k (k − 1) α AvgGradInner."""

    def gradient(losses, phi, alpha):
        algorithm, meta, tasks = on_quadratics(losses, phi, inner_lr=alpha)
        return meta_gradient(algorithm, meta, tasks)["theta"] / alpha

    first, second = expansion(gradient, k)
    assert first == pytest.approx(k, rel=1e-6)
    assert second == pytest.approx(-k * (k - 1) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "optimiser", [{"name": "sgd"}, {"name": "adam", "beta1": 0.0}, {"name": "adam"}], ids=["sgd", "adam-0", "adam"]
)
def test_a_full_outer_step_on_one_task_ends_where_the_task_ended(optimiser):
    config = ReptileConfig(inner_optimiser=optimiser, inner_lr=0.01, inner_steps=6, inner_batch=4, outer_lr=1.0)
    algorithm, meta = on(Reptile, config, "mlp")
    tasks = some_tasks(algorithm)
    end = algorithm.adapt(meta, tasks, seeds=[7]).params
    after, _ = learn_round(algorithm, LearnerState(meta), algorithm.rollout(meta, tasks, seeds=[7]), seed=0)
    assert max(float((after.meta.params[n] - meta.params[n]).abs().max()) for n in end) > 1e-3
    assert_same(after.meta.params, {name: value[0] for name, value in end.items()})


def test_adam_without_its_first_moment_is_another_inner_loop():
    ends = [
        meta_gradient(*on(Reptile, ReptileConfig(inner_optimiser=o, inner_lr=0.01), "mlp"), some)["head.bias"]
        for o in ({"name": "adam", "beta1": 0.0}, {"name": "adam"})
        for some in [some_tasks(on(Reptile, ReptileConfig(), "mlp")[0])]
    ]
    assert not torch.allclose(ends[0], ends[1], rtol=1e-2)


def test_tasks_are_averaged():
    algorithm, meta = on(Reptile, ReptileConfig(inner_lr=0.1), "mlp")
    tasks = some_tasks(algorithm, 3)
    ends = algorithm.adapt(meta, tasks, seeds=[1, 2, 3]).params
    got = meta_gradient(algorithm, meta, tasks, seeds=(1, 2, 3))
    assert_same(got, {name: meta.params[name] - value.mean(0) for name, value in ends.items()})


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = on(Reptile, ReptileConfig(inner_steps=4, inner_lr=0.2, inner_batch=5), net)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: meta_gradient(algorithm, meta, tasks, seeds=(1, 2, 3)))
    assert_same(one, other, rtol=1e-8, atol=1e-10)


def test_the_outer_rate_falls_to_nothing():
    algorithm, meta = on(Reptile, ReptileConfig(outer_lr=0.8, anneal_rounds=4), "mlp")
    assert [algorithm.outer(v).rates["head.bias"] for v in range(6)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0, 0])
    steady, _ = on(Reptile, ReptileConfig(outer_lr=0.8), "mlp")
    assert steady.outer(1000).rates == dict.fromkeys(meta.params, 0.8)


def test_warps_stay():
    algorithm, _ = on(Reptile, ReptileConfig(), "warp mlp")
    assert set(algorithm.outer().rates) == algorithm.adaptable < set(algorithm.model.roles)
