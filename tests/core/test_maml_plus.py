"""MAML++: MAML when all is off, and each extra by itself."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.support.memory import peak_bytes
from tests.support.unrolled import NETS, assert_same, both_ways, meta_gradient, on, served_loss, slopes, some_tasks
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.configs.maml_plus import MAMLPlusConfig
from warploom.algorithms.maml import MAML
from warploom.algorithms.maml_plus import MAMLPlus
from warploom.functional import batch_stats, forward, task_loss
from warploom.learner import STATS_MOMENTUM, LearnerState, learn_round
from warploom.types import MetaState

OFF = {
    "multi_step_rounds": 0,
    "first_order_rounds": 0,
    "per_step_rates": False,
    "per_step_norms": False,
    "per_step_stats": False,
    "cosine_rounds": None,
}
INNER = {"inner_lr": 0.2, "inner_steps": 3}
RUNNING = "conv, running"


def plus(net, **options):
    return on(MAMLPlus, MAMLPlusConfig(**{**INNER, **OFF, **options}), net)


@pytest.mark.parametrize("net", [*NETS])
@pytest.mark.parametrize("options", [{}, {"truncate": 1}, {"inner_batch": 5}])
def test_with_all_extras_off_it_is_maml(net, options):
    one, meta = plus(net, **options)
    other, start = on(MAML, MAMLConfig(**INNER, **options), net)
    assert_same(meta.params, start.params, rtol=0, atol=0)
    assert_same(meta.stats, start.stats, rtol=0, atol=0)
    tasks, seeds = some_tasks(one, 2), [1, 2]
    for a, b in zip(one.rollout(meta, tasks, seeds=seeds), other.rollout(meta, tasks, seeds=seeds), strict=True):
        assert_same(a.gradient, b.gradient, rtol=0, atol=0)
        assert_same(a.stats, b.stats, rtol=0, atol=0)
    a, b = one.adapt(meta, tasks, seeds=seeds), other.adapt(meta, tasks, seeds=seeds)
    assert_same({**a.params, **a.stats}, {**b.params, **b.stats}, rtol=0, atol=0)
    assert one.outer(7) == other.outer(7)


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, transductive", "conv, running"])
@pytest.mark.parametrize("version", [600, 10_000])
def test_with_all_extras_on_the_gradient_is_the_slope_of_what_is_served(net, version):
    """Once the loss after the last step is the only one, and derivatives are whole."""
    algorithm, meta = on(MAMLPlus, MAMLPlusConfig(**INNER, multi_step_rounds=600), net)
    meta = replace(meta, version=version)
    tasks = some_tasks(algorithm, 2)
    gradient = meta_gradient(algorithm, meta, tasks, (4, 5))
    assert set(gradient) == set(meta.params) == set(algorithm.outer().rates)
    for prefix in ("", "lr:", "norm:"):
        names = [name for name in gradient if name.startswith(prefix)]
        pairs = slopes(gradient, meta, lambda m: served_loss(algorithm, m, tasks, (4, 5)), names, directions=2)
        for along, expected in pairs if names else ():
            assert along == pytest.approx(expected, rel=1e-5, abs=1e-6)


# Multi-step loss.


def test_weights_of_the_losses_go_from_equal_to_the_last_alone():
    algorithm, _ = plus("mlp", inner_steps=5, multi_step_rounds=100)
    assert algorithm.weights(0) == pytest.approx([0.2] * 5)
    assert algorithm.weights(50) == pytest.approx([0.1] * 4 + [0.6])
    assert algorithm.weights(99) == pytest.approx([0.03 / 5] * 4 + [1 - 4 * 0.03 / 5])
    assert algorithm.weights(100) == [0.0] * 4 + [1.0]


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task"])
def test_the_multi_step_gradient_is_the_weighted_sum_of_maml_after_each_step(net):
    algorithm, meta = plus(net, multi_step_rounds=100)
    meta = replace(meta, version=40)
    tasks = some_tasks(algorithm)
    total = {name: torch.zeros_like(value) for name, value in meta.params.items()}
    for k, weight in enumerate([0.2, 0.2, 0.6], start=1):
        maml, _ = on(MAML, MAMLConfig(inner_lr=0.2, inner_steps=k), net)
        for name, value in meta_gradient(maml, meta, tasks).items():
            total[name] += weight * value
    assert_same(meta_gradient(algorithm, meta, tasks), total)


# Derivative-order annealing.


def test_early_rounds_take_inner_gradients_as_constants():
    algorithm, meta = plus("mlp", first_order_rounds=10)
    truncated, _ = on(MAML, MAMLConfig(**INNER, truncate=0), "mlp")
    full, _ = on(MAML, MAMLConfig(**INNER), "mlp")
    tasks = some_tasks(algorithm)
    first, second = (meta_gradient(algorithm, replace(meta, version=v), tasks) for v in (9, 10))
    assert_same(first, meta_gradient(truncated, meta, tasks))
    assert_same(second, meta_gradient(full, meta, tasks), rtol=0, atol=0)
    assert max(float((first[n] - second[n]).abs().max()) for n in first) > 1e-3


def test_learned_rates_keep_their_first_order_derivative():
    """∂L_Q(θ − Σ_k a_k g_k)/∂a_k = −⟨g_k, ∇L_Q⟩ with the g_k held."""
    algorithm, meta = plus("mlp", first_order_rounds=10, per_step_rates=True)
    tasks = some_tasks(algorithm)
    steps = list(algorithm._path(meta, tasks, algorithm._batches(tasks, [0]), None, None))
    end = {n: v[0].requires_grad_() for n, v in steps[-1].theta_T.items()}
    loss = task_loss("regression", forward(algorithm.model, end, tasks.query_x[0]), tasks.query_y[0])
    outer = dict(zip(end, torch.autograd.grad(loss, list(end.values())), strict=True))
    gradient = meta_gradient(algorithm, meta, tasks)
    for name in end:
        expected = torch.stack([-(step.gradient_T[name][0] * outer[name]).sum() for step in steps[:-1]])
        torch.testing.assert_close(gradient[f"lr:{name}"], expected)


def test_early_rounds_need_less_memory():
    algorithm, meta = plus("mlp", first_order_rounds=10, inner_steps=12)
    tasks = some_tasks(algorithm)
    early, late = (
        peak_bytes(lambda v=v: algorithm.task_gradients(replace(meta, version=v), tasks, seeds=[0])) for v in (9, 10)
    )
    assert early < 0.5 * late


# Per-step rates.


def test_each_step_has_its_own_rates_and_later_steps_the_last():
    algorithm, meta = plus("mlp", per_step_rates=True)
    rates = {n: v for n, v in algorithm.init(0).params.items() if n.startswith("lr:")}
    assert {n.removeprefix("lr:") for n in rates} == algorithm.adaptable
    assert all(torch.equal(v, torch.full((3,), 0.2)) for v in rates.values())
    tasks = some_tasks(algorithm)
    steps = list(algorithm._path(meta, tasks, algorithm._batches(tasks, [0], 5), 5, 0.1))
    for step, after in itertools.pairwise(steps):
        for name, value in step.theta_T.items():
            rate = 0.1 / 0.2 * meta.params[f"lr:{name}"][min(step.k, 2)]
            torch.testing.assert_close(after.theta_T[name], value - rate * step.gradient_T[name])


def test_rates_have_a_step_size_of_their_own():
    algorithm, _ = plus("mlp", per_step_rates=True, outer_lr=0.01, rates_lr=0.002)
    rates = algorithm.outer().rates
    assert {rate for name, rate in rates.items() if name.startswith("lr:")} == {0.002}
    assert {rate for name, rate in rates.items() if not name.startswith("lr:")} == {0.01}


# Per-step norms.


def test_norms_are_set_at_each_step_and_do_not_adapt():
    algorithm, meta = plus("conv, norms by task", per_step_norms=True)
    norms = [f"norm{i}.{part}" for i in range(2) for part in ("weight", "bias")]
    assert [n for n in meta.params if n.startswith("norm:")] == [f"norm:{n}" for n in norms]
    tasks = some_tasks(algorithm, 2)
    for step in algorithm._path(meta, tasks, algorithm._batches(tasks, [0, 1], 5), 5, None):
        for name in norms:
            own = meta.params[name] if step.k == 0 else meta.params[f"norm:{name}"][min(step.k, 3) - 1]
            assert torch.equal(step.theta_T[name], own.expand(2, -1))
        assert set(step.theta_T) == algorithm.adaptable


def test_norms_start_as_the_models_own():
    algorithm, _ = plus("conv, norms by task", per_step_norms=True)
    params = algorithm.init(0).params
    for name in ("norm0.weight", "norm1.bias"):
        assert torch.equal(params[f"norm:{name}"], params[name].expand(3, -1))


def test_norms_within_warps_are_left_alone():
    _, meta = plus("warp conv", per_step_norms=True)
    assert [n for n in meta.params if n.startswith("norm:")] == ["norm:norm0.weight", "norm:norm0.bias"]


# Per-step statistics.


def test_each_state_is_normalised_by_its_own_statistics():
    """Against plain autograd: the support loss under θ_k with the k-th row, the queries with the last."""
    algorithm, meta = plus(RUNNING, per_step_stats=True)
    gen = torch.Generator().manual_seed(8)
    noisy = {n: v + 0.3 * torch.rand(v.shape, generator=gen, dtype=torch.float64) for n, v in meta.stats.items()}
    meta = replace(meta, stats=noisy)
    assert all(rows.shape == (4, 3) for rows in noisy.values())
    tasks = some_tasks(algorithm)
    theta = {name: value.detach().requires_grad_() for name, value in meta.params.items()}
    start, names = theta, list(theta)

    def loss(own, k, x, y):
        return task_loss("classification", forward(algorithm.model, own, x, {n: v[k] for n, v in noisy.items()}), y)

    for k in range(3):
        value = loss(theta, k, tasks.support_x[0], tasks.support_y[0])
        slope = torch.autograd.grad(value, [theta[n] for n in names], create_graph=True)
        theta = {name: theta[name] - 0.2 * g for name, g in zip(names, slope, strict=True)}
    final = loss(theta, 3, tasks.query_x[0], tasks.query_y[0])
    expected = dict(zip(names, torch.autograd.grad(final, [start[n] for n in names]), strict=True))
    assert_same(meta_gradient(algorithm, meta, tasks), expected)
    assert_same(algorithm.given_stats(meta), {n: v[0] for n, v in noisy.items()}, rtol=0)
    adapted = algorithm.adapt(meta, tasks, seeds=[0])
    assert_same({n: v[0] for n, v in adapted.params.items()}, theta)
    assert_same({n: v[0] for n, v in adapted.stats.items()}, {n: v[3] for n, v in noisy.items()}, rtol=0)
    further = algorithm.adapt(meta, tasks, seeds=[0], steps=9)
    assert_same(further.stats, adapted.stats, rtol=0)


def test_each_row_moves_towards_the_statistics_under_its_own_state():
    algorithm, meta = plus(RUNNING, per_step_stats=True)
    tasks = some_tasks(algorithm, 2)
    seen = []
    for step in algorithm._path(meta, tasks, algorithm._batches(tasks, [0, 1]), None, None):
        of_tasks = [
            batch_stats(algorithm.model, {n: v[t] for n, v in step.theta_T.items()}, tasks.support_x[t])
            for t in range(2)
        ]
        seen.append({n: (of_tasks[0][n] + of_tasks[1][n]) / 2 for n in of_tasks[0]})
    experiences = algorithm.rollout(meta, tasks, seeds=[0, 1])
    after, _ = learn_round(algorithm, LearnerState(meta), experiences, seed=0)
    for name, rows in meta.stats.items():
        expected = (1 - STATS_MOMENTUM) * rows + STATS_MOMENTUM * torch.stack([s[name] for s in seen])
        torch.testing.assert_close(after.meta.stats[name], expected)


@pytest.mark.parametrize("net", ["conv, norms by task", "conv, transductive"])
def test_other_modes_of_normalisation_have_no_statistics_to_keep(net):
    with_rows, meta = plus(net, per_step_stats=True)
    without, _ = plus(net)
    tasks = some_tasks(with_rows)
    assert meta.stats == {}
    assert_same(meta_gradient(with_rows, meta, tasks), meta_gradient(without, meta, tasks), rtol=0, atol=0)


# Cosine schedule.


def test_outer_rates_fall_along_half_a_cosine():
    algorithm, _ = plus("mlp", per_step_rates=True, cosine_rounds=200, outer_lr=0.01, outer_lr_min=0.001, rates_lr=0.02)
    rates = [algorithm.outer(version).rates["head.bias"] for version in (0, 50, 100, 200, 500)]
    quarter = 0.001 + 0.009 * (1 + math.cos(math.pi / 4)) / 2
    assert rates == pytest.approx([0.01, quarter, 0.0055, 0.001, 0.001])
    assert algorithm.outer(100).rates["lr:head.bias"] == pytest.approx(0.011)


def test_a_rate_that_would_rise_is_refused():
    with pytest.raises(ValidationError, match="outer_lr_min must be at most outer_lr"):
        MAMLPlusConfig(outer_lr=1e-6)
    assert MAMLPlusConfig(outer_lr=1e-6, cosine_rounds=None).outer_lr == 1e-6


# All together.


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, running"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = on(MAMLPlus, MAMLPlusConfig(**INNER, inner_batch=5), net)
    tasks = some_tasks(algorithm, 3)

    def both():
        adapted = algorithm.adapt(meta, tasks, seeds=[1, 2, 3], lr=[0.1, 0.2, 0.3])
        return {**adapted.params, **adapted.stats}, algorithm.rollout(meta, tasks, seeds=[1, 2, 3])

    (adapted, one), (looped, other) = both_ways(monkeypatch, both)
    assert_same(adapted, looped)
    for a, b in zip(one, other, strict=True):
        assert_same(a.gradient, b.gradient)
        assert_same(a.stats, b.stats)
        assert a.metrics == pytest.approx(b.metrics)


@pytest.mark.parametrize("net", ["mlp", "conv, running"])
def test_rounds_through_all_stages_lower_the_loss_of_queries(net):
    config = MAMLPlusConfig(
        inner_lr=0.05,
        inner_steps=2,
        outer_lr=0.02,
        rates_lr=0.005,
        multi_step_rounds=6,
        first_order_rounds=3,
        cosine_rounds=12,
    )
    algorithm, start = on(MAMLPlus, config, net)
    tasks, seeds = some_tasks(algorithm, 2), [0, 1]
    state = LearnerState(MetaState(0, start.params, start.stats))
    for _ in range(12):
        state, _ = learn_round(algorithm, state, algorithm.rollout(state.meta, tasks, seeds=seeds), seed=0)
    assert served_loss(algorithm, state.meta, tasks, seeds) < 0.9 * served_loss(algorithm, start, tasks, seeds)
