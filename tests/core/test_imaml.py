"""iMAML: closed forms of linear regression, differences of the solved bilevel problem, and what it must not keep."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.func import grad

from tests.support.bilevel import NETS, design, joined, linear, on, one_task, plain_loss, query_loss, slope_along, split
from tests.support.memory import peak_bytes
from warploom.algorithms.configs.imaml import IMAMLConfig
from warploom.algorithms.imaml import IMAML
from warploom.errors import InvalidInput
from warploom.models.configs.mlp import MLPConfig
from warploom.spec import JobSpec
from warploom.tasks.configs.continual_sine import ContinualSineConfig
from warploom.tasks.configs.sinusoid import SinusoidConfig
from warploom.types import TaskRef

EXACT = {"inner_solver": "hessian-free", "inner_steps": 5, "newton_cg_steps": 30, "cg_steps": 30, "cg_tolerance": 1e-13}
STRENGTH = 0.7


def answer(meta, tasks, strength=STRENGTH):
    """φ* and the meta-gradient of the linear model: both systems have the matrix λ I + 2/(S O) XᵀX."""
    x, y, x_Q, y_Q = (v[0] for v in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    half = 2 / y.numel() * design(x).mT
    matrix = strength * torch.eye(3, dtype=torch.float64) + half @ design(x)
    best = torch.linalg.solve(matrix, strength * joined(meta.params) + half @ y)
    slope = 2 / y_Q.numel() * design(x_Q).mT @ (design(x_Q) @ best - y_Q)
    return split(best), split(strength * torch.linalg.solve(matrix, slope))


def difference(found, wanted):
    return max(float((found[n] - wanted[n]).abs().max()) for n in wanted)


def gradients(algorithm, meta, tasks):
    return {n: g[0] for n, g in algorithm.task_gradients(meta, tasks, seeds=[0])[0].items()}


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"inner_steps": 60, "inner_lr": 0.5}, 1e-9),
        ({"inner_steps": 60, "inner_lr": 0.3, "inner_optimiser": {"momentum": 0.4, "nesterov": True}}, 1e-9),
        ({"inner_steps": 200, "inner_lr": 0.05, "inner_optimiser": "adam"}, 1e-3),
        (EXACT, 1e-11),
    ],
    ids=["gd", "nesterov", "adam", "hessian-free"],
)
def test_every_inner_solver_comes_to_the_closed_form(options, tolerance):
    if isinstance(options.get("inner_optimiser"), dict):
        options = {**options, "inner_optimiser": {"name": "sgd", **options["inner_optimiser"]}}
    algorithm, meta = linear(IMAML, IMAMLConfig(**{"cg_steps": 20, **options}, proximal=STRENGTH))
    tasks = one_task(algorithm)
    best, gradient = answer(meta, tasks)
    adapted = {n: v[0] for n, v in algorithm.adapt(meta, tasks, seeds=[0]).params.items()}
    assert difference(adapted, best) < tolerance
    assert difference(gradients(algorithm, meta, tasks), gradient) < 10 * tolerance


def test_the_error_falls_with_cg_steps_and_with_inner_steps():
    def error(**options):
        algorithm, meta = linear(IMAML, IMAMLConfig(**{**EXACT, **options}, proximal=0.02))
        tasks = one_task(algorithm)
        return difference(gradients(algorithm, meta, tasks), answer(meta, tasks, 0.02)[1])

    by_cg = [error(cg_steps=n) for n in (0, 1, 2, 3)]
    assert by_cg[0] > by_cg[1] > by_cg[2] > by_cg[3]
    assert by_cg[3] < 1e-10, "three unknowns for each output, with one Hessian"
    by_steps = [error(inner_solver="gradient", inner_lr=0.3, inner_steps=n) for n in (1, 4, 16, 64)]
    assert all(after < 0.7 * before for before, after in itertools.pairwise(by_steps))


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_is_the_slope_of_the_solved_bilevel_problem(name):
    strength = 3.0 if "mlp" in NETS[name].name else 20.0  # so strong that no path crosses an edge of max-pooling
    algorithm, meta = on(IMAML, IMAMLConfig(**EXACT, proximal=strength), NETS[name])
    tasks = one_task(algorithm, 2)
    x, y, stats = tasks.support_x[0], tasks.support_y[0], meta.stats

    def objective(at):
        phi = algorithm.adapt(at, tasks, seeds=[0]).params
        leaves = {n: v[0].requires_grad_() for n, v in phi.items()}
        inner = plain_loss(algorithm, {**at.params, **leaves}, x, y, stats)
        inner = inner + strength / 2 * sum((v - at.params[n]).square().sum() for n, v in leaves.items())
        slopes = torch.autograd.grad(inner, list(leaves.values()))
        assert max(float(s.abs().max()) for s in slopes) < 1e-8, "the inner problem is not solved"
        return query_loss(algorithm, at, tasks, {n: v.detach() for n, v in phi.items()})

    got = gradients(algorithm, meta, tasks)
    assert set(got) == set(algorithm.outer().rates) == set(meta.params)
    direction, expected = slope_along(algorithm, meta, tasks, objective, list(got))
    assert float(sum((got[n] * direction[n]).sum() for n in got)) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_no_cg_steps_leave_the_first_order_gradient():
    algorithm, meta = on(IMAML, IMAMLConfig(cg_steps=0, inner_steps=4), NETS["tanh net"])
    tasks = one_task(algorithm)
    phi = {n: v[0] for n, v in algorithm.adapt(meta, tasks, seeds=[0]).params.items()}
    expected = grad(lambda p: plain_loss(algorithm, p, tasks.query_x[0], tasks.query_y[0]))(phi)
    assert difference(gradients(algorithm, meta, tasks), expected) < 1e-14


def by_hand(algorithm, meta, tasks, steps, proximal):
    theta = {n: v.clone().requires_grad_() for n, v in meta.params.items()}
    for _ in range(steps):
        loss = plain_loss(algorithm, theta, tasks.support_x[0], tasks.support_y[0])
        slopes = torch.autograd.grad(loss, list(theta.values()))
        theta = {
            n: (v - 0.1 * (s + proximal * (v - meta.params[n]))).detach().requires_grad_()
            for (n, v), s in zip(theta.items(), slopes, strict=True)
        }
    return {n: v.detach() for n, v in theta.items()}


def test_the_proximal_term_is_in_every_step():
    algorithm, meta = on(IMAML, IMAMLConfig(inner_steps=5, proximal=3.0), NETS["tanh net"])
    tasks = one_task(algorithm)
    adapted = algorithm.adapt(meta, tasks, seeds=[0])
    assert difference({n: v[0] for n, v in adapted.params.items()}, by_hand(algorithm, meta, tasks, 5, 3.0)) < 1e-14
    params = {n: v[0] for n, v in adapted.params.items()}
    shown = plain_loss(algorithm, params, tasks.support_x[0], tasks.support_y[0])
    assert float(adapted.losses_TK[0, -1]) == pytest.approx(float(shown)), "losses are those of the task alone"


def test_the_authors_form_pulls_back_once_and_has_its_own_matrix():
    options = {"inner_steps": 5, "proximal": 3.0, "damping": 0.6, "cg_steps": 40, "cg_tolerance": 1e-14}
    algorithm, meta = on(IMAML, IMAMLConfig(form="authors", **options), NETS["tanh net"])
    tasks = one_task(algorithm)
    free = by_hand(algorithm, meta, tasks, 5, 0.0)
    phi = {n: v - 0.1 * 3.0 * (v - meta.params[n]) for n, v in free.items()}
    adapted = algorithm.adapt(meta, tasks, seeds=[0])
    assert difference({n: v[0] for n, v in adapted.params.items()}, phi) < 1e-14
    shown = plain_loss(algorithm, phi, tasks.support_x[0], tasks.support_y[0])
    assert float(adapted.losses_TK[0, -1]) == pytest.approx(float(shown))

    names, sizes = list(phi), [v.numel() for v in phi.values()]

    def unflat(vector):
        return {n: part.view_as(phi[n]) for n, part in zip(names, vector.split(sizes), strict=True)}

    flat = torch.cat([v.flatten() for v in phi.values()])
    support = grad(lambda v: plain_loss(algorithm, unflat(v), tasks.support_x[0], tasks.support_y[0]))
    bend = torch.func.jacrev(support)(flat)
    slope = grad(lambda v: plain_loss(algorithm, unflat(v), tasks.query_x[0], tasks.query_y[0]))(flat)
    expected = torch.linalg.solve(1.6 * torch.eye(len(flat)).double() + bend / 13, slope)
    assert difference(gradients(algorithm, meta, tasks), unflat(expected)) < 1e-9
    rates = [0.05, 0.1]
    two = algorithm.family.sample([TaskRef("train", i, 0) for i in (1, 0)])
    assert (
        difference({n: v[1] for n, v in algorithm.adapt(meta, two, seeds=[1, 0], lr=rates).params.items()}, phi) < 1e-13
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tanh net", {"form": "authors"}),
        ("tanh net", {"inner_batch": 4, "cg_tolerance": 0.1}),
        ("warped", {"inner_solver": "hessian-free"}),
        ("normalised", {"inner_solver": "hessian-free", "inner_steps": 2}),
        ("normalised", {}),
    ],
)
def test_vectorised_equals_loop(name, options, monkeypatch):
    algorithm, meta = on(IMAML, IMAMLConfig(**{"inner_steps": 3, **options}), NETS[name])
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(3)])
    found = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        gradient, metrics = algorithm.task_gradients(meta, tasks, seeds=[1, 2, 3])
        found.append({**gradient, **metrics, **algorithm.adapt(meta, tasks, seeds=[1, 2, 3]).params})
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("solver", ["gradient", "hessian-free"])
def test_memory_is_flat_in_the_inner_steps(solver):
    def peak(steps):
        config = IMAMLConfig(inner_solver=solver, inner_steps=steps, inner_lr=0.01)
        algorithm, meta = on(IMAML, config, NETS["tanh net"])
        tasks = one_task(algorithm)
        return peak_bytes(lambda: algorithm.task_gradients(meta, tasks, seeds=[0]))

    few, many = peak(2), peak(40 if solver == "gradient" else 5)
    assert many < 1.1 * few


def test_a_task_that_diverges_teaches_nothing():
    algorithm, meta = on(IMAML, IMAMLConfig(inner_lr=100.0, inner_steps=200), NETS["tanh net"])
    (experience,) = algorithm.rollout(meta, one_task(algorithm), seeds=[0])
    assert experience.metrics["diverged"] == 1.0
    assert not experience.gradient


def test_what_can_be_asked_for():
    def parse(**options):
        document = {"algorithm": {"name": "imaml", **options}, "task": "sinusoid", "model": "mlp"}
        spec = JobSpec.parse(document)
        assert JobSpec.parse(spec.to_json()) == spec
        return spec.algorithm

    assert parse().inner_lr == 0.1
    assert parse(inner_solver="hessian-free").inner_lr == 1.0
    assert parse(inner_solver="hessian-free", inner_lr=0.5).inner_lr == 0.5
    with pytest.raises(InvalidInput, match="weight_decay must be 0"):
        parse(inner_optimiser={"name": "sgd", "weight_decay": 0.1})


def test_a_loss_without_a_minimum_of_its_own_is_refused():
    assert "changes its loss while it adapts" in IMAMLConfig().why_unfit(ContinualSineConfig(), MLPConfig())
    assert IMAMLConfig().why_unfit(SinusoidConfig(), MLPConfig()) is None
