"""First-order MAML: by hand, by its expansion, and against MAML where nothing is backpropagated."""

from __future__ import annotations

import pytest
import torch

from tests.support.expansion import Quadratic, by_algorithm, expansion
from tests.support.memory import peak_bytes
from tests.support.unrolled import assert_same, both_ways, meta_gradient, on, some_tasks
from warploom.algorithms.configs.fomaml import FOMAMLConfig
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.fomaml import FOMAML
from warploom.algorithms.maml import MAML
from warploom.functional import forward, task_loss
from warploom.spec import JobSpec


def fomaml(model, family, steps, lr):
    return FOMAML(FOMAMLConfig(inner_steps=steps, inner_lr=lr), model, family)


def maml(model, family, steps, lr):
    return MAML(MAMLConfig(inner_steps=steps, inner_lr=lr), model, family)


def bowl(curvature, bottom):
    return Quadratic(torch.tensor([[curvature]]).double(), torch.tensor([bottom]).double())


def test_two_steps_by_hand():
    """θ = 3 → 3 − ¼·2·(3−1) = 2 → 2 − ¼·2·(2−1) = 1.5; there 4·(1.5−0.5) = 4. MAML: times (1 − ¼·2)² = 1."""
    losses = [bowl(2.0, 1.0), bowl(2.0, 1.0), bowl(4.0, 0.5)]
    start = torch.tensor([3.0]).double()
    assert float(by_algorithm(fomaml)(losses, start, 0.25)) == pytest.approx(4.0, abs=1e-12)
    assert float(by_algorithm(maml)(losses, start, 0.25)) == pytest.approx(1.0, abs=1e-12)


def test_steps_on_different_losses_come_in_their_order():
    """θ = 3 → 3 − ¼·2·(3−1) = 2 → 2 − ¼·1·(2−4) = 2.5; there 4·(2.5−0.5) = 8."""
    losses = [bowl(2.0, 1.0), bowl(1.0, 4.0), bowl(4.0, 0.5)]
    assert float(by_algorithm(fomaml)(losses, torch.tensor([3.0]).double(), 0.25)) == pytest.approx(8.0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_expansion_in_small_steps(k):
    """Of Nichol et al.: AvgGrad − (k − 1) α AvgGradInner, half of MAML's second term."""
    assert expansion(by_algorithm(fomaml), k) == pytest.approx((1.0, -(k - 1.0)), rel=1e-6)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("mlp", {}),
        ("mlp", {"inner_optimiser": {"name": "sgd", "momentum": 0.7, "weight_decay": 0.1}}),
        ("warp mlp", {}),
        ("conv, norms by task", {}),
        ("conv, transductive", {"inner_batch": 6}),
        ("conv, running", {}),
        ("warp conv", {}),
    ],
)
def test_it_is_maml_truncated_to_no_step(net, options):
    one, meta = on(FOMAML, FOMAMLConfig(inner_steps=3, inner_lr=0.2, **options), net)
    other, _ = on(MAML, MAMLConfig(inner_steps=3, inner_lr=0.2, truncate=0, **options), net)
    full, _ = on(MAML, MAMLConfig(inner_steps=3, inner_lr=0.2, **options), net)
    tasks = some_tasks(one, 2)
    found = meta_gradient(one, meta, tasks, (1, 2))
    assert_same(found, meta_gradient(other, meta, tasks, (1, 2)))
    exact = meta_gradient(full, meta, tasks, (1, 2))
    assert max(float((found[n] - exact[n]).abs().max()) for n in found) > 1e-3


def test_it_is_the_gradient_at_the_adapted_parameters():
    """By plain autograd; for a net with warps, which do not adapt, theirs too."""
    algorithm, meta = on(FOMAML, FOMAMLConfig(inner_steps=4, inner_lr=0.2), "warp mlp")
    tasks = some_tasks(algorithm)
    adapted = {n: v[0] for n, v in algorithm.adapt(meta, tasks, seeds=[0]).params.items()}
    leaves = {n: v.detach().requires_grad_() for n, v in {**meta.params, **adapted}.items()}
    loss = task_loss("regression", forward(algorithm.model, leaves, tasks.query_x[0]), tasks.query_y[0])
    expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert_same(meta_gradient(algorithm, meta, tasks), expected)


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, running"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = on(FOMAML, FOMAMLConfig(inner_steps=3, inner_batch=5), net)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: algorithm.rollout(meta, tasks, seeds=[1, 2, 3]))
    for a, b in zip(one, other, strict=True):
        assert_same(a.gradient, b.gradient)
        assert_same(a.stats, b.stats)
        assert a.metrics == pytest.approx(b.metrics)


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task"])
def test_memory_is_flat_in_the_steps_and_below_that_of_maml(net):
    def peak(implementation, config):
        algorithm, meta = on(implementation, config, net, support=120)
        tasks = some_tasks(algorithm)
        return peak_bytes(lambda: algorithm.task_gradients(meta, tasks, seeds=[0]))

    few, many = (peak(FOMAML, FOMAMLConfig(inner_steps=steps)) for steps in (2, 12))
    assert many < 1.02 * few
    assert many < 0.3 * peak(MAML, MAMLConfig(inner_steps=12))


def test_any_inner_optimiser_fits():
    document = {"algorithm": {"name": "fomaml", "inner_optimiser": "rprop"}, "task": "sinusoid", "model": "mlp"}
    assert not JobSpec.parse(document).algorithm.through_inner_loop


def test_metrics_are_the_losses_on_the_way():
    algorithm, meta = on(FOMAML, FOMAMLConfig(inner_steps=3), "mlp")
    tasks = some_tasks(algorithm)
    metrics = algorithm.rollout(meta, tasks, seeds=[0])[0].metrics
    losses = algorithm.adapt(meta, tasks, seeds=[0]).losses_TK[0]
    assert (metrics["support_loss_first"], metrics["support_loss"]) == pytest.approx(
        (float(losses[0]), float(losses[3]))
    )
