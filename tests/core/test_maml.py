"""MAML's meta-gradient against two independent libraries, central differences and plain autograd, in float64."""

from __future__ import annotations

from dataclasses import replace

import higher
import pytest
import torch
import torchopt
from torch.func import functional_call

from tests.support.expansion import by_algorithm, expansion
from tests.support.memory import peak_bytes
from tests.support.unrolled import assert_same, both_ways, meta_gradient, on, served_loss, slopes, some_tasks
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.maml import MAML
from warploom.errors import UnfitPair
from warploom.functional import task_loss
from warploom.learner import LearnerState, learn_round
from warploom.spec import JobSpec

RULES = {
    "sgd": ({"name": "sgd"}, 0.3, torch.optim.SGD, torchopt.MetaSGD, {}),
    "momentum and decay": (
        {"name": "sgd", "momentum": 0.8, "weight_decay": 0.05},
        0.1,
        torch.optim.SGD,
        torchopt.MetaSGD,
        {"momentum": 0.8, "weight_decay": 0.05},
    ),
    # higher adds ε to a root that lacks its correction, and TorchOpt computes corrections in single precision: so ε is
    # next to nothing, and the βs are such that single precision holds their powers.
    "adam": (
        {"name": "adam", "beta1": 0.5, "beta2": 0.75, "eps": 1e-14},
        0.05,
        torch.optim.Adam,
        torchopt.MetaAdam,
        {"betas": (0.5, 0.75), "eps": 1e-14},
    ),
}
# Both libraries call a net on one batch at a time, so that batch normalisation is transductive there. A bias before it
# has gradients of round-off alone, which Adam would blow up.
ORACLES = [
    (net, rule)
    for net in ("mlp", "warp mlp", "conv, transductive")
    for rule in RULES
    if (net, rule) != ("conv, transductive", "adam")
]


def module_with(algorithm, meta):
    """The algorithm's net as an ordinary one that holds the meta-state's parameters."""
    module = algorithm.model.factory().double()
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(meta.params[name])
            value.requires_grad_(True)
    return module


def loss_of(algorithm, net, x, y):
    return task_loss(algorithm.model.kind, net(x), y)


def by_higher(algorithm, module, tasks, rule, lr, options):
    adapt = [p for name, p in module.named_parameters() if name in algorithm.adaptable]
    with higher.innerloop_ctx(
        module, rule(adapt, lr=lr, **options), copy_initial_weights=False, track_higher_grads=True
    ) as (net, optimiser):
        for _ in range(algorithm.config.inner_steps):
            optimiser.step(loss_of(algorithm, net, tasks.support_x[0], tasks.support_y[0]))
        loss_of(algorithm, net, tasks.query_x[0], tasks.query_y[0]).backward()
    return {name: p.grad for name, p in module.named_parameters()}


def by_torchopt(algorithm, module, tasks, rule, lr, options):
    start = dict(module.named_parameters())
    theta = {name: p for name, p in start.items() if name in algorithm.adaptable}
    make = {torchopt.MetaSGD: torchopt.sgd, torchopt.MetaAdam: torchopt.adam}[rule]
    optimiser = make(lr=lr, **options)
    names, state = list(theta), optimiser.init(tuple(theta.values()))

    def loss(own, x, y):
        return loss_of(algorithm, lambda x: functional_call(module, {**start, **own}, (x,)), x, y)

    for _ in range(algorithm.config.inner_steps):
        now = tuple(theta[name] for name in names)
        slope = torch.autograd.grad(loss(theta, tasks.support_x[0], tasks.support_y[0]), now, create_graph=True)
        change, state = optimiser.update(slope, state, params=now, inplace=False)
        theta = dict(zip(names, torchopt.apply_updates(now, change, inplace=False), strict=True))
    last = loss(theta, tasks.query_x[0], tasks.query_y[0])
    return dict(zip(start, torch.autograd.grad(last, list(start.values())), strict=True))


@pytest.mark.parametrize("library", ["higher", "torchopt"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(("net", "rule"), ORACLES)
def test_the_meta_gradient_is_that_of_other_libraries(net, rule, steps, library):
    ours, lr, of_torch, of_torchopt, options = RULES[rule]
    algorithm, meta = on(MAML, MAMLConfig(inner_lr=lr, inner_steps=steps, inner_optimiser=ours), net)
    tasks = some_tasks(algorithm)
    module = module_with(algorithm, meta)
    if library == "higher":
        expected = by_higher(algorithm, module, tasks, of_torch, lr, options)
    else:
        expected = by_torchopt(algorithm, module, tasks, of_torchopt, lr, options)
    got = meta_gradient(algorithm, meta, tasks)
    largest = max(float(value.abs().max()) for value in expected.values())
    assert largest > 1e-3
    assert_same(got, expected, rtol=1e-6, atol=1e-6 * largest)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("mlp", {}),
        ("mlp", {"inner_batch": 3}),
        ("mlp", {"inner_optimiser": {"name": "sgd", "momentum": 0.5, "nesterov": True}}),
        ("warp mlp", {}),
        ("conv, norms by task", {}),
        ("conv, norms by task", {"inner_batch": 6}),
        ("conv, transductive", {}),
        ("conv, running", {}),
        ("warp conv", {}),
    ],
)
def test_the_meta_gradient_is_the_slope_of_what_is_served(net, options):
    """Central differences of adapting and predicting as the service does: all statistics of norms included."""
    algorithm, meta = on(MAML, MAMLConfig(inner_lr=0.2, inner_steps=3, **options), net)
    tasks = some_tasks(algorithm, 2)
    gradient = meta_gradient(algorithm, meta, tasks, seeds=(4, 5))
    assert set(gradient) == set(algorithm.model.roles)
    for along, expected in slopes(gradient, meta, lambda m: served_loss(algorithm, m, tasks, seeds=(4, 5))):
        assert along == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_task_and_transductive_norms_give_different_gradients():
    one, meta = on(MAML, MAMLConfig(inner_steps=2), "conv, norms by task")
    other, _ = on(MAML, MAMLConfig(inner_steps=2), "conv, transductive")
    tasks = some_tasks(one)
    a, b = meta_gradient(one, meta, tasks), meta_gradient(other, meta, tasks)
    assert max(float((a[n] - b[n]).abs().max()) for n in a) > 1e-3


@pytest.mark.parametrize("net", ["mlp", "conv, transductive"])
@pytest.mark.parametrize("last", [0, 1, 2, 4])
def test_truncation_is_maml_from_the_state_that_it_cuts_at(net, last):
    steps = 4
    algorithm, meta = on(MAML, MAMLConfig(inner_lr=0.3, inner_steps=steps, truncate=last), net)
    tasks = some_tasks(algorithm)
    adapted = algorithm.adapt(meta, tasks, seeds=[0], steps=steps - last)
    there = replace(meta, params={name: value[0] for name, value in adapted.params.items()})
    names = list(there.params)
    start = {name: value.detach().requires_grad_() for name, value in there.params.items()}
    module, theta = algorithm.model.factory().double(), start

    def loss(own, x, y):
        return loss_of(algorithm, lambda x: functional_call(module, own, (x,)), x, y)

    for _ in range(last):
        slope = torch.autograd.grad(
            loss(theta, tasks.support_x[0], tasks.support_y[0]), [theta[n] for n in names], create_graph=True
        )
        theta = {name: theta[name] - 0.3 * g for name, g in zip(names, slope, strict=True)}
    final = loss(theta, tasks.query_x[0], tasks.query_y[0])
    expected = dict(zip(names, torch.autograd.grad(final, [start[n] for n in names]), strict=True))
    assert_same(meta_gradient(algorithm, meta, tasks), expected)


def test_truncation_beyond_all_steps_is_none():
    full, meta = on(MAML, MAMLConfig(inner_steps=3), "mlp")
    cut, _ = on(MAML, MAMLConfig(inner_steps=3, truncate=7), "mlp")
    assert_same(meta_gradient(full, meta, some_tasks(full)), meta_gradient(cut, meta, some_tasks(cut)), rtol=0, atol=0)


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, running"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = on(MAML, MAMLConfig(inner_steps=3, inner_batch=5), net)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: algorithm.rollout(meta, tasks, seeds=[1, 2, 3]))
    for a, b in zip(one, other, strict=True):
        assert_same(a.gradient, b.gradient)
        assert_same(a.stats, b.stats)
        assert a.metrics == pytest.approx(b.metrics)


def test_memory_grows_by_the_same_for_each_step_and_not_in_those_cut_off():
    def peak(steps, **options):
        algorithm, meta = on(MAML, MAMLConfig(inner_steps=steps, **options), "mlp", support=128)
        tasks = some_tasks(algorithm)
        return peak_bytes(lambda: algorithm.rollout(meta, tasks, seeds=[0]))

    few, some, many = peak(5), peak(10), peak(20)
    assert many - some == pytest.approx(2 * (some - few), rel=0.02)
    assert many > 2.5 * few
    assert peak(20, truncate=5) < 1.1 * few


def test_frozen_parameters_are_held_and_get_no_gradient():
    algorithm, meta = on(MAML, MAMLConfig(inner_steps=2), "mlp")
    roles = {**algorithm.model.roles, "layer0.weight": "frozen"}
    frozen = MAML(algorithm.config, replace(algorithm.model, roles=roles), algorithm.family)
    tasks = some_tasks(frozen)
    gradient = meta_gradient(frozen, meta, tasks)
    assert set(gradient) == set(frozen.outer().rates) == set(roles) - {"layer0.weight"}
    for along, expected in slopes(gradient, meta, lambda m: served_loss(frozen, m, tasks)):
        assert along == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_metrics_are_the_losses_on_the_way():
    algorithm, meta = on(MAML, MAMLConfig(inner_steps=3, inner_lr=0.2), "mlp")
    tasks = some_tasks(algorithm)
    metrics = algorithm.rollout(meta, tasks, seeds=[0])[0].metrics
    losses = algorithm.adapt(meta, tasks, seeds=[0]).losses_TK[0]
    assert metrics["support_loss_first"] == pytest.approx(float(losses[0]))
    assert metrics["support_loss"] == pytest.approx(float(losses[2]))
    assert metrics["query_loss"] == pytest.approx(served_loss(algorithm, meta, tasks))


def test_a_task_that_diverges_teaches_nothing():
    algorithm, meta = on(MAML, MAMLConfig(inner_lr=100.0, inner_steps=60), "mlp")
    (experience,) = algorithm.rollout(meta, some_tasks(algorithm), seeds=[0])
    assert experience.metrics["diverged"] == 1.0
    assert not experience.gradient


@pytest.mark.parametrize("k", [2, 3])
def test_expansion_in_small_steps(k):
    maml = by_algorithm(
        lambda model, family, steps, lr: MAML(MAMLConfig(inner_steps=steps, inner_lr=lr), model, family)
    )
    assert expansion(maml, k) == pytest.approx((1.0, -2.0 * (k - 1)), rel=1e-6)


def test_an_optimiser_without_derivatives_is_refused_unless_nothing_goes_through_it():
    document = {"algorithm": {"name": "maml", "inner_optimiser": "rprop"}, "task": "sinusoid", "model": "mlp"}
    with pytest.raises(UnfitPair, match="requirement II"):
        JobSpec.parse(document)
    document["algorithm"]["truncate"] = 0
    assert JobSpec.parse(document).algorithm.cut == 5


def test_a_few_rounds_lower_the_loss_of_queries():
    algorithm, meta = on(MAML, MAMLConfig(inner_lr=0.05, inner_steps=2, outer_lr=0.02), "mlp")
    tasks = some_tasks(algorithm, 4)
    seeds = (0, 1, 2, 3)
    state = LearnerState(meta)
    for _ in range(15):
        state, _ = learn_round(algorithm, state, algorithm.rollout(state.meta, tasks, seeds=list(seeds)), seed=0)
    assert served_loss(algorithm, state.meta, tasks, seeds) < 0.8 * served_loss(algorithm, meta, tasks, seeds)
