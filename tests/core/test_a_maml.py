"""A-MAML: the adjoint against backpropagation through the same steps, and what it may keep."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, jacrev

from tests.support.bilevel import NETS, design, joined, linear, on, one_task, plain_loss, split
from tests.support.memory import peak_bytes
from warploom.algorithms.a_maml import AMAML
from warploom.algorithms.configs.a_maml import AMAMLConfig
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.maml import MAML
from warploom.errors import InvalidInput
from warploom.spec import JobSpec
from warploom.types import TaskRef


def difference(found, wanted):
    assert set(found) == set(wanted)
    return max(float((found[n] - wanted[n]).abs().max()) for n in wanted)


def gradients(algorithm, meta, tasks):
    return {n: g[0] for n, g in algorithm.task_gradients(meta, tasks, seeds=[4])[0].items()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("inner_batch", [None, 5])
def test_euler_equals_maml_to_round_off(name, inner_batch):
    options = {"inner_steps": 6, "inner_lr": 0.1, "inner_batch": inner_batch}
    adjoint, meta = on(AMAML, AMAMLConfig(**options), NETS[name])
    unrolled, _ = on(MAML, MAMLConfig(**options), NETS[name])
    tasks = adjoint.family.sample([TaskRef("train", i, 0) for i in range(2)])
    found, shown = adjoint.task_gradients(meta, tasks, seeds=[4, 5])
    wanted, metrics = unrolled.task_gradients(meta, tasks, seeds=[4, 5])
    assert set(found) == set(adjoint.outer().rates) == set(meta.params)
    assert difference(found, wanted) < 1e-12
    torch.testing.assert_close(shown["query_loss"], metrics["query_loss"])


def unrolled(algorithm, meta, tasks, mu, outer_mu):
    """dJ/dm by the ordinary autograd through the steps, with both proximal terms."""
    config = algorithm.config
    learned = {n: v.clone().requires_grad_() for n, v in meta.params.items()}
    u = {n: learned[n] for n in algorithm.adaptable}
    for _ in range(config.inner_steps):
        loss = plain_loss(algorithm, {**learned, **u}, tasks.support_x[0], tasks.support_y[0])
        slopes = torch.autograd.grad(loss, list(u.values()), create_graph=True)
        u = {n: v - config.inner_lr * (s + mu * (v - learned[n])) for (n, v), s in zip(u.items(), slopes, strict=True)}
    total = plain_loss(algorithm, {**learned, **u}, tasks.query_x[0], tasks.query_y[0])
    total = total + outer_mu / 2 * sum((v - learned[n]).square().sum() for n, v in u.items())
    return dict(zip(learned, torch.autograd.grad(total, list(learned.values())), strict=True))


@pytest.mark.parametrize("name", ["tanh net", "warped"])
@pytest.mark.parametrize(("mu", "outer_mu"), [(0.8, 0.0), (0.0, 0.5), (0.8, 0.5)])
def test_proximal_terms_count_as_start_and_as_centre(name, mu, outer_mu):
    config = AMAMLConfig(inner_steps=6, inner_lr=0.1, proximal=mu, outer_proximal=outer_mu)
    algorithm, meta = on(AMAML, config, NETS[name])
    tasks = one_task(algorithm)
    wanted = unrolled(algorithm, meta, tasks, mu, outer_mu)
    assert difference(gradients(algorithm, meta, tasks), wanted) < 1e-13


@pytest.mark.parametrize(("name", "mu"), [("tanh net", 0.0), ("tanh net", 0.8), ("warped", 0.3)])
def test_heun_comes_to_the_exact_gradient_in_proportion_to_the_step(name, mu):
    errors = []
    for steps in (8, 16, 32):
        config = AMAMLConfig(rule="heun", inner_steps=steps, inner_lr=0.8 / steps, proximal=mu, outer_proximal=mu)
        algorithm, meta = on(AMAML, config, NETS[name])
        tasks = one_task(algorithm)
        errors.append(difference(gradients(algorithm, meta, tasks), unrolled(algorithm, meta, tasks, mu, mu)))
    assert errors[0] > 1e-4
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert 1.9 < errors[1] / errors[2] < 2.1


def test_heun_is_the_recursion_of_the_paper_with_whole_hessians():
    h, mu = 0.3, 0.4
    algorithm, meta = on(AMAML, AMAMLConfig(rule="heun", inner_steps=3, inner_lr=h, proximal=mu), NETS["tanh net"])
    tasks = one_task(algorithm)
    names, sizes = list(meta.params), [v.numel() for v in meta.params.values()]

    def named(vector):
        return {n: v.view_as(meta.params[n]) for n, v in zip(names, vector.split(sizes), strict=True)}

    def support(vector):
        return plain_loss(algorithm, named(vector), tasks.support_x[0], tasks.support_y[0])

    states = [torch.cat([v.flatten() for v in meta.params.values()])]
    for _ in range(3):
        states.append(states[-1] - h * (grad(support)(states[-1]) + mu * (states[-1] - states[0])))
    bends = [jacrev(grad(support))(u) + mu * torch.eye(len(u)).double() for u in states]
    adjoint = grad(lambda u: plain_loss(algorithm, named(u), tasks.query_x[0], tasks.query_y[0]))(states[-1])
    start = torch.zeros_like(adjoint)
    for left, right in ((2, 3), (1, 2), (0, 1)):
        guess = adjoint - h * bends[right] @ adjoint
        start = start + h * mu * (adjoint + guess) / 2
        adjoint = adjoint - h / 2 * (bends[right] @ adjoint + bends[left] @ guess)
    assert difference(gradients(algorithm, meta, tasks), named(adjoint + start)) < 1e-13


@pytest.mark.parametrize("rule", ["euler", "heun"])
def test_on_a_quadratic_each_step_back_is_a_known_matrix(rule):
    """A = 2/(S O) XᵀX + μ is constant: λ_0 = P^n λ_n with P = I − h A, for Heun + h² A²/2; θ as the centre adds
    h μ Σ_j P^j λ_n, for Heun with (2 I − h A)/2 before it."""
    h, n, mu = 0.2, 7, 0.6
    algorithm, meta = linear(AMAML, AMAMLConfig(rule=rule, inner_steps=n, inner_lr=h, proximal=mu))
    tasks = one_task(algorithm)
    x, y, x_Q, y_Q = (v[0] for v in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    eye, half = torch.eye(3, dtype=torch.float64), 2 / y.numel() * design(x).mT
    a = half @ design(x) + mu * eye
    theta = u = joined(meta.params)
    for _ in range(n):
        u = u - h * (half @ (design(x) @ u - y) + mu * (u - theta))
    end = 2 / y_Q.numel() * design(x_Q).mT @ (design(x_Q) @ u - y_Q)
    once = eye - h * a + (0.5 * h * h * a @ a if rule == "heun" else 0)
    weight = eye - 0.5 * h * a if rule == "heun" else eye
    powers = [torch.linalg.matrix_power(once, j) for j in range(n + 1)]
    expected = powers[n] @ end + h * mu * weight @ sum(powers[:n]) @ end
    assert difference(gradients(algorithm, meta, tasks), split(expected)) < 1e-13


@pytest.mark.parametrize("name", ["tanh net", "warped", "normalised"])
def test_vectorised_equals_loop(name, monkeypatch):
    config = AMAMLConfig(rule="heun", inner_steps=3, inner_lr=0.1, inner_batch=4, proximal=0.5)
    algorithm, meta = on(AMAML, config, NETS[name])
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(3)])
    found = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        gradient, metrics = algorithm.task_gradients(meta, tasks, seeds=[1, 2, 3])
        found.append({**gradient, **metrics, **algorithm.adapt(meta, tasks, seeds=[1, 2, 3]).params})
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-9, atol=1e-11)


def test_memory_grows_by_the_states_alone():
    def peak(implementation, config, steps):
        algorithm, meta = on(implementation, config(inner_steps=steps, inner_lr=0.01), NETS["tanh net"], support=40)
        tasks = one_task(algorithm)
        state = sum(v.nbytes for v in meta.params.values())
        return peak_bytes(lambda: algorithm.task_gradients(meta, tasks, seeds=[0])) / state

    own = peak(AMAML, AMAMLConfig, 42) - peak(AMAML, AMAMLConfig, 2)
    assert 35 < own < 60, "one state for each of 40 steps, and their losses"
    assert peak(MAML, MAMLConfig, 12) - peak(MAML, MAMLConfig, 2) > 1.5 * own, "in a quarter of the steps"


def test_only_a_gradient_flow_has_this_adjoint():
    document = {"algorithm": {"name": "a-maml", "inner_optimiser": "adam"}, "task": "sinusoid", "model": "mlp"}
    with pytest.raises(InvalidInput, match="must be sgd without momentum"):
        JobSpec.parse(document)
    with pytest.raises(InvalidInput, match="must be sgd without momentum"):
        JobSpec.parse(
            {**document, "algorithm": {"name": "a-maml", "inner_optimiser": {"name": "sgd", "momentum": 0.5}}}
        )
