"""Learned rates against finite differences, by hand, and against fixed rates on sine waves."""

from __future__ import annotations

import pytest
import torch

from tests.support.memory import peak_bytes
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
from warploom.algorithms.configs.learned_rates import LearnedRatesConfig
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.learned_rates import LearnedRates
from warploom.algorithms.maml import MAML
from warploom.codec import pack_meta, unpack_meta


def make(net="mlp", **options):
    return on(LearnedRates, LearnedRatesConfig(**{"inner_lr": 0.2, "inner_steps": 3, **options}), net)


def factors(meta):
    return {name: value for name, value in meta.params.items() if name.startswith("lr:")}


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, running", "warp mlp"])
def test_the_gradient_is_the_slope_of_the_served_loss(net, per_step):
    algorithm, meta = make(net, per_step=per_step, inner_batch=5)
    tasks = some_tasks(algorithm, 2)
    got = meta_gradient(algorithm, meta, tasks, seeds=(1, 2))
    assert set(got) == set(algorithm.model.roles) | set(factors(meta))
    value = lambda moved: served_loss(algorithm, moved, tasks, seeds=(1, 2))  # noqa: E731
    for names in (list(factors(meta)), list(got)):
        for along, slope in slopes(got, meta, value, names):
            assert along == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("width", "every"), [(2, False), (2, True), (1, False), (5, True)])
@pytest.mark.parametrize("optimiser", [{"name": "sgd", "momentum": 0.8}, {"name": "adam"}], ids=["momentum", "adam"])
def test_windows(optimiser, width, every):
    options = {"inner_optimiser": optimiser, "inner_lr": 0.1, "inner_steps": 5, "inner_batch": 4, "per_step": True}
    algorithm, meta = make(window=width, loss_at="every" if every else "last", **options)
    check_windows(algorithm, meta, width=width, every=every)


def test_the_window_matters():
    whole, meta = make(inner_steps=4)
    halves, _ = make(inner_steps=4, window=2)
    tasks = some_tasks(whole)
    one, other = (meta_gradient(algorithm, meta, tasks)["lr:head.bias"] for algorithm in (whole, halves))
    assert float((one - other).abs()) > 1e-3 * float(one.abs())


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, transductive", "warp conv"])
def test_factors_of_one_are_maml(net):
    algorithm, meta = make(net)
    maml, _ = on(MAML, MAMLConfig(inner_lr=0.2, inner_steps=3), net)
    meta.params.update({name: torch.ones_like(value) for name, value in factors(meta).items()})
    tasks = some_tasks(algorithm, 2)
    ours, theirs = (meta_gradient(a, meta, tasks, seeds=(1, 2)) for a in (algorithm, maml))
    assert_same({name: ours[name] for name in theirs}, theirs)


def test_steps_by_hand():
    """Each tensor has its own rate at each step; the last goes on, and the request's own rate scales all."""
    algorithm, meta = make(per_step=True, inner_steps=2)
    names = sorted(algorithm.adaptable)
    meta.params.update({f"lr:{n}": torch.tensor([0.5 + i, 2.0 - i], dtype=torch.float64) for i, n in enumerate(names)})
    tasks = some_tasks(algorithm)
    x, y = tasks.support_x[0], tasks.support_y[0]
    theta = {name: meta.params[name] for name in names}
    for k in range(4):
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        loss = ((torch.func.functional_call(algorithm.model.module, leaves, (x,)) - y) ** 2).mean()
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        rates = {n: 0.01 * ((0.5 + i) if k == 0 else (2.0 - i)) for i, n in enumerate(names)}
        theta = {name: theta[name] - rates[name] * grads[name] for name in names}
    got = algorithm.adapt(meta, tasks, seeds=[0], steps=4, lr=0.01).params
    assert_same({name: value[0] for name, value in got.items()}, theta)


def test_vectorised_equals_loop(monkeypatch):
    algorithm, meta = make(per_step=True, window=2, inner_batch=5)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: meta_gradient(algorithm, meta, tasks, seeds=(1, 2, 3)))
    assert_same(one, other, rtol=1e-8, atol=1e-10)


def test_memory_grows_with_the_window_and_not_with_the_path():
    def peak(steps, window):
        algorithm, meta = make(inner_steps=steps, window=window)
        tasks = some_tasks(algorithm)
        return peak_bytes(lambda: algorithm.rollout(meta, tasks, seeds=[0]))

    short, long, whole = peak(4, 2), peak(16, 2), peak(16, None)
    assert long < 1.2 * short
    assert whole > 3 * long


def test_a_fixed_initialisation_stays():
    algorithm, meta = make(initialisation="fixed", rates_lr=0.5)
    assert algorithm.outer().rates == dict.fromkeys(factors(meta), 0.5)
    assert set(meta_gradient(algorithm, meta, some_tasks(algorithm))) == set(factors(meta))


def test_factors_travel_as_they_are():
    _, meta = make()
    back = unpack_meta(pack_meta(meta))
    assert {name: value.shape for name, value in back.params.items()} == {n: v.shape for n, v in meta.params.items()}


def test_learned_rates_beat_fixed_ones_on_sines():
    after, before = after_training("learned-rates", initialisation="fixed", rates_lr=0.1)
    assert after < 0.85 * before
