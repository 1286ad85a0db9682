"""The learned loss against finite differences, by hand, and against squared error on sine waves."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from tests.support.expansion import Quadratics, QuadraticsConfig
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
from warploom import registry
from warploom.algorithms.configs.learned_loss import LearnedLossConfig
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.learned_loss import LearnedLoss
from warploom.algorithms.maml import MAML
from warploom.errors import UnfitPair
from warploom.spec import JobSpec
from warploom.tasks.base import TaskFamily


def make(net="mlp", **options):
    settings = {"inner_lr": 0.2, "inner_steps": 3, "hidden": (6, 5), "activation": "tanh", **options}
    return on(LearnedLoss, LearnedLossConfig(**settings), net)


def weights(meta):
    return {name: value for name, value in meta.params.items() if name.startswith("loss:")}


@pytest.mark.parametrize("base", ["task", "none"])
@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, transductive", "warp mlp"])
def test_the_gradient_is_the_slope_of_the_served_loss(net, base):
    algorithm, meta = make(net, base=base, inner_batch=5)
    tasks = some_tasks(algorithm, 2)
    got = meta_gradient(algorithm, meta, tasks, seeds=(1, 2))
    assert set(got) == set(algorithm.model.roles) | set(weights(meta))
    value = lambda moved: served_loss(algorithm, moved, tasks, seeds=(1, 2))  # noqa: E731
    for names in (list(weights(meta)), list(got)):
        for along, slope in slopes(got, meta, value, names):
            assert along == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_other_activations(activation):
    algorithm, meta = make(activation=activation, base="none")
    check_windows(algorithm, meta, width=3, every=False)


@pytest.mark.parametrize(("width", "every"), [(2, False), (2, True), (4, True)])
def test_windows(width, every):
    algorithm, meta = make(inner_steps=4, window=width, loss_at="every" if every else "last")
    check_windows(algorithm, meta, width=width, every=every)


def test_the_net_on_regression_by_hand():
    """One hidden unit: softplus(3 relu(2a − y)), averaged over examples and outputs."""
    algorithm, _ = make(hidden=(1,), activation="relu")
    net = {"loss:0": torch.tensor([[2.0, -1.0]]), "loss:1": torch.tensor([[3.0]])}
    outputs, y = torch.tensor([[1.0, 0.5], [0.0, 2.0]]), torch.tensor([[1.5, 2.0], [1.0, 1.0]])
    hidden = [0.5, 0.0, 0.0, 3.0]
    expected = sum(math.log1p(math.exp(3 * h)) for h in hidden) / 4
    assert float(algorithm.loss_net(net, outputs, y)) == pytest.approx(expected, rel=1e-6)


def test_the_net_on_classification_by_hand():
    """softplus(relu(p − 1[class])) summed over classes; p = (1/2, 1/4, 1/4), true class 1."""
    algorithm, _ = make("conv, norms by task", hidden=(1,), activation="relu")
    net = {"loss:0": torch.tensor([[1.0, -1.0]]), "loss:1": torch.tensor([[1.0]])}
    found = algorithm.loss_net(net, torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([1]))
    assert float(found) == pytest.approx(sum(math.log1p(math.exp(h)) for h in (0.5, 0.0, 0.25)), rel=1e-6)


@pytest.mark.parametrize("base", ["task", "none"])
def test_value_of_the_family_slope_of_the_net(base):
    algorithm, meta = make(base=base)
    tasks = some_tasks(algorithm)
    x, y = tasks.support_x[0], tasks.support_y[0]
    theta = {n: v.clone().requires_grad_() for n, v in algorithm.start(meta.params).items()}
    value = algorithm.support_loss(meta.params, theta, x, y, {})
    outputs = functional_call(algorithm.model.module, theta, (x,))
    own = ((outputs - y) ** 2).mean()
    learned = algorithm.loss_net(meta.params, outputs, y) + (own if base == "task" else 0)
    assert value.item() == pytest.approx(own.item(), rel=1e-12)
    ours = torch.autograd.grad(value, list(theta.values()), retain_graph=True)
    theirs = torch.autograd.grad(learned, list(theta.values()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "warp conv"])
def test_it_starts_as_the_familys_own_loss(net):
    algorithm, meta = make(net)
    maml, _ = on(MAML, MAMLConfig(inner_lr=0.2, inner_steps=3), net)
    assert not algorithm.init(0).params["loss:2"].any()
    meta.params["loss:2"] = torch.zeros_like(meta.params["loss:2"])
    tasks = some_tasks(algorithm, 2)
    ours, theirs = (meta_gradient(a, meta, tasks, seeds=(1, 2)) for a in (algorithm, maml))
    assert_same({name: ours[name] for name in theirs}, theirs)
    assert all(make(net, base="none")[0].init(0).params[name].any() for name in weights(meta))


def test_reported_losses_are_the_familys_own():
    algorithm, meta = make(base="none", inner_steps=2)
    tasks = some_tasks(algorithm)
    (experience,) = algorithm.rollout(meta, tasks, seeds=[0])
    adapted = algorithm.adapt(meta, tasks, seeds=[0])
    for k, reported in enumerate(adapted.losses_TK[0].tolist()):
        theta = algorithm.adapt(meta, tasks, seeds=[0], steps=k).params
        outputs = functional_call(algorithm.model.module, {n: v[0] for n, v in theta.items()}, (tasks.support_x[0],))
        assert reported == pytest.approx(float(((outputs - tasks.support_y[0]) ** 2).mean()), rel=1e-9)
    assert experience.metrics["support_loss_first"] == pytest.approx(float(adapted.losses_TK[0, 0]))


def test_vectorised_equals_loop(monkeypatch):
    algorithm, meta = make("conv, norms by task", inner_batch=5)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: meta_gradient(algorithm, meta, tasks, seeds=(1, 2, 3)))
    assert_same(one, other, rtol=1e-8, atol=1e-10)


def test_a_family_with_a_loss_of_its_own_is_refused():
    family = Quadratics(QuadraticsConfig())
    with pytest.raises(UnfitPair, match="has a loss of another kind; use sinusoid"):
        LearnedLoss(LearnedLossConfig(), family.model(), family)
    for task, model in (("maze", "rnn"), ("surfaces", "point")):
        with pytest.raises(UnfitPair, match=f"task '{task}' has a loss of another kind; use sinusoid"):
            JobSpec.parse({"algorithm": "learned-loss", "task": task, "model": model})
    for name, entry in registry.TASKS.items():
        family_class = registry.load(entry.implementation)
        assert registry.config_class("task", name).own_loss == (family_class.loss is not TaskFamily.loss)


def test_step_sizes():
    algorithm, meta = make(loss_lr=0.5, outer_lr=0.25)
    rates = algorithm.outer().rates
    assert {name: rates[name] for name in weights(meta)} == dict.fromkeys(weights(meta), 0.5)
    assert {rates[name] for name in algorithm.model.roles} == {0.25}
    fixed, _ = make(initialisation="fixed")
    assert set(fixed.outer().rates) == set(weights(meta))


def test_a_learned_loss_beats_squared_error_on_sines():
    after, before = after_training("learned-loss", initialisation="fixed", loss_lr=0.02, hidden=[32])
    assert after < 0.92 * before
