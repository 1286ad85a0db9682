"""The learned optimiser against finite differences, by hand, and against plain descent on sine waves."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.sines import after_training
from tests.support.unrolled import (
    assert_same,
    both_ways,
    meta_gradient,
    on,
    served_loss,
    slopes,
    some_tasks,
)
from tests.support.windowed import check_windows
from warploom.algorithms.configs.learned_optimizer import LearnedOptimizerConfig
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.algorithms.learned_optimizer import LearnedOptimizer, features
from warploom.algorithms.none import NoMeta

CELLS = ["mlp", "lstm"]


def make(net="mlp", **options):
    settings = {"inner_lr": 0.1, "inner_steps": 3, "hidden": 4, "decays": (0.5, 0.9), "first_order": False, **options}
    return on(LearnedOptimizer, LearnedOptimizerConfig(**settings), net)


def weights(meta):
    return {name: value for name, value in meta.params.items() if name.startswith("opt:")}


def test_features_by_hand():
    e = math.e
    x = torch.tensor([1.0, -(e**2), e**-9, -(e**-11), 0.0], dtype=torch.float64)
    expected = [[0, 1], [0.2, -1], [-0.9, 1], [-1, -1 / e], [-1, 0]]
    torch.testing.assert_close(features(x), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("optimiser", [{"name": "sgd", "momentum": 0.9}, {"name": "adam"}])
@pytest.mark.parametrize("cell", CELLS)
def test_it_starts_as_the_optimiser_that_it_bends(cell, optimiser):
    algorithm, meta = make(cell=cell, inner_optimiser=optimiser)
    plain, _ = on(NoMeta, NoMetaConfig(inner_lr=0.1, inner_steps=3, inner_optimiser=optimiser), "mlp")
    fresh = algorithm.init(0).params
    assert not any(fresh[name].any() for name in ("opt:out", "opt:out_bias"))
    assert fresh["opt:in"].any()
    meta.params.update({name: torch.zeros_like(meta.params[name]) for name in ("opt:out", "opt:out_bias")})
    tasks = some_tasks(algorithm, 2)
    ours, theirs = (a.adapt(meta, tasks, seeds=[1, 2]).params for a in (algorithm, plain))
    assert_same(ours, theirs, rtol=1e-12, atol=1e-14)


def test_two_steps_of_one_coordinate_by_hand():
    """One hidden unit that sees g and its average alone."""
    algorithm, _ = make(hidden=1, decays=(0.5,))
    net = {"in": [[0.3, -0.2, 0.7, 0.1]], "bias": [0.05], "out": [[0.4], [-0.6]], "out_bias": [0.02, 0.03]}
    learned = {f"opt:{name}": torch.tensor(value, dtype=torch.float64) for name, value in net.items()}
    theta, average = 1.5, 0.0
    now = {"w": torch.tensor([theta], dtype=torch.float64)}
    state = algorithm.inner_state(learned, now)
    lr = torch.tensor(0.1, dtype=torch.float64)
    for g in (0.8, -0.25):
        average = 0.5 * average + 0.5 * g
        seen = [math.log(abs(g)) / 10, math.copysign(1, g), math.log(abs(average)) / 10, math.copysign(1, average)]
        h = math.tanh(sum(w * v for w, v in zip(net["in"][0], seen, strict=True)) + 0.05)
        theta += math.exp(0.4 * h + 0.02) * (-0.1 * g) - 0.1 * (-0.6 * h + 0.03)
        now, state = algorithm.inner_step(learned, 0, now, {"w": torch.tensor([g], dtype=torch.float64)}, state, lr)
        assert float(now["w"]) == pytest.approx(theta, rel=1e-12)


def test_the_cell_is_that_of_torch_and_remembers():
    """Three steps of four coordinates: each has a state of its own, which goes from step to step."""
    algorithm, meta = make(cell="lstm", hidden=5, decays=())
    cell = torch.nn.LSTMCell(2, 5).double()
    forget = torch.arange(20) // 5 == 1  # ours has 1 added
    with torch.no_grad():
        cell.weight_ih.copy_(meta.params["opt:in"])
        cell.weight_hh.copy_(meta.params["opt:again"])
        cell.bias_ih.copy_(meta.params["opt:bias"] + forget)
        cell.bias_hh.zero_()
    lr = torch.tensor(0.1, dtype=torch.float64)
    gen = torch.Generator().manual_seed(0)
    theta = expected = torch.zeros(4, dtype=torch.float64)
    state = algorithm.inner_state(meta.params, {"w": theta})
    memory = (theta.new_zeros(4, 5), theta.new_zeros(4, 5))
    for k in range(3):
        g = torch.randn(4, generator=gen, dtype=torch.float64)
        found, state = algorithm.inner_step(meta.params, k, {"w": theta}, {"w": g}, state, lr)
        theta = found["w"]
        memory = cell(features(g), memory)
        a, b = (memory[0] @ meta.params["opt:out"].T + meta.params["opt:out_bias"]).unbind(-1)
        expected = (expected - 0.1 * a.exp() * g - 0.1 * b).detach()
        torch.testing.assert_close(theta, expected)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("net", ["mlp", "warp mlp"])
def test_the_gradient_is_the_slope_of_the_served_loss(net, cell):
    algorithm, meta = make(net, cell=cell, loss_at="last", inner_batch=5, inner_optimiser={"name": "adam"})
    tasks = some_tasks(algorithm, 2)
    got = meta_gradient(algorithm, meta, tasks, seeds=(1, 2))
    assert set(got) == set(algorithm.model.roles) | set(weights(meta))
    value = lambda moved: served_loss(algorithm, moved, tasks, seeds=(1, 2))  # noqa: E731
    for names in (list(weights(meta)), list(got)):
        for along, slope in slopes(got, meta, value, names):
            assert along == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("width", "every"), [(2, True), (2, False)])
def test_windows(width, every, cell, first_order):
    """First order: the slope with every inner gradient held at its value."""
    options = {"cell": cell, "first_order": first_order, "inner_optimiser": {"name": "sgd", "momentum": 0.5}}
    algorithm, meta = make(inner_steps=5, window=width, loss_at="every" if every else "last", **options)
    check_windows(algorithm, meta, width=width, every=every)


def test_convolutions():
    algorithm, meta = make("conv, norms by task", inner_steps=2)
    check_windows(algorithm, meta, width=2, every=True, rel=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_vectorised_equals_loop(cell, monkeypatch):
    algorithm, meta = make(cell=cell, inner_batch=5, window=2)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: meta_gradient(algorithm, meta, tasks, seeds=(1, 2, 3)))
    assert_same(one, other, rtol=1e-8, atol=1e-10)


def test_step_sizes():
    algorithm, meta = make(net_lr=0.5, outer_lr=0.25)
    rates = algorithm.outer().rates
    assert {name: rates[name] for name in weights(meta)} == dict.fromkeys(weights(meta), 0.5)
    assert {rates[name] for name in algorithm.model.roles} == {0.25}
    fixed, _ = make(initialisation="fixed")
    assert set(fixed.outer().rates) == set(weights(meta))


def test_a_learned_optimiser_beats_plain_descent_on_sines():
    after, before = after_training("learned-optimizer", initialisation="fixed", net_lr=0.02, rounds=20)
    assert after < 0.7 * before
