"""Implicit hyper-gradients: the closed form of ridge regression, and differences of the solved bilevel problem."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad

from tests.support.bilevel import NETS, design, joined, linear, on, one_task, plain_loss, query_loss, slope_along, split
from warploom.algorithms.configs.implicit_hpo import ImplicitHPOConfig
from warploom.algorithms.implicit_hpo import ImplicitHPO
from warploom.build import build
from warploom.errors import InvalidInput
from warploom.local import train
from warploom.spec import JobSpec
from warploom.types import TaskRef

EXACT = {
    "inner_solver": "hessian-free",
    "inner_steps": 5,
    "newton_cg_steps": 30,
    "solve_steps": 30,
    "cg_tolerance": 1e-13,
}


def difference(found, wanted):
    return max(float((found[n] - wanted[n]).abs().max()) for n in wanted)


def gradients(algorithm, meta, tasks):
    return {n: g[0] for n, g in algorithm.task_gradients(meta, tasks, seeds=[0])[0].items()}


def ridge(meta, tasks, centre):
    """L_Q at the solution of ridge regression, with one strength for the weights and one for the bias, and its slope
    by automatic differentiation of the solved normal equations."""
    x, y, x_Q, y_Q = (v[0] for v in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    half = 2 / y.numel() * design(x).mT

    def loss(learned):
        strength = torch.stack([learned[f"l2:head.{n}"].exp() for n in ("weight", "weight", "bias")])
        pull = strength.unsqueeze(1) * joined(learned) if centre == "initialisation" else 0.0
        best = torch.linalg.solve(half @ design(x) + torch.diag(strength), half @ y + pull)
        return ((design(x_Q) @ best - y_Q) ** 2).mean(), best

    slope, best = grad(loss, has_aux=True)(meta.params)
    return slope, split(best)


@pytest.mark.parametrize("centre", ["initialisation", "zero"])
@pytest.mark.parametrize(
    "options",
    [EXACT, {"inner_steps": 120, "inner_lr": 0.4, "solver": "neumann", "solve_steps": 120}],
    ids=["newton and cg", "gradient steps and neumann"],
)
def test_ridge_strengths_have_their_closed_form(centre, options):
    algorithm, meta = linear(ImplicitHPO, ImplicitHPOConfig(**options, centre=centre, l2=0.3))
    tasks = one_task(algorithm)
    slope, best = ridge(meta, tasks, centre)
    adapted = algorithm.adapt(meta, tasks, seeds=[0])
    assert difference({n: v[0] for n, v in adapted.params.items()}, best) < 1e-9
    found = gradients(algorithm, meta, tasks)
    learned = {"l2:head.weight", "l2:head.bias"} | (set(best) if centre == "initialisation" else set())
    assert set(found) == set(algorithm.outer().rates) == learned
    assert difference(found, {n: slope[n] for n in learned}) < 1e-9
    assert min(float(slope[n].abs().max()) for n in learned) > 1e-3


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_the_error_falls_with_the_steps_of_the_solve(solver):
    errors = []
    for steps in (0, 1, 2, 3, 30):
        config = ImplicitHPOConfig(**{**EXACT, "solver": solver, "solve_steps": steps, "neumann_size": 0.5, "l2": 0.05})
        algorithm, meta = linear(ImplicitHPO, config)
        tasks = one_task(algorithm)
        slope, _ = ridge(meta, tasks, "initialisation")
        errors.append(difference(gradients(algorithm, meta, tasks), slope))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    if solver == "cg":
        assert errors[3] < 1e-10, "three unknowns for each output, with one Hessian"
    else:
        assert 0 < errors[4] < 0.05 * errors[3]


@pytest.mark.parametrize("centre", ["initialisation", "zero"])
@pytest.mark.parametrize("name", ["tanh net", "warped"])
def test_the_gradient_is_the_slope_of_the_solved_bilevel_problem(name, centre):
    config = ImplicitHPOConfig(**{**EXACT, "inner_steps": 8}, centre=centre, l2=2.0, init_lr=None)
    algorithm, meta = on(ImplicitHPO, config, NETS[name])
    tasks = one_task(algorithm, 2)

    def objective(at):
        phi = algorithm.adapt(at, tasks, seeds=[0]).params
        leaves = {n: v[0].requires_grad_() for n, v in phi.items()}
        inner = plain_loss(algorithm, {**at.params, **leaves}, tasks.support_x[0], tasks.support_y[0])
        for n, v in leaves.items():
            away = v - at.params[n] if centre == "initialisation" else v
            inner = inner + 0.5 * at.params[f"l2:{n}"].exp() * away.square().sum()
        slopes = torch.autograd.grad(inner, list(leaves.values()))
        assert max(float(s.abs().max()) for s in slopes) < 1e-8, "the inner problem is not solved"
        return query_loss(algorithm, at, tasks, {n: v.detach() for n, v in phi.items()})

    got = gradients(algorithm, meta, tasks)
    direction, expected = slope_along(algorithm, meta, tasks, objective, list(got))
    assert float(sum((got[n] * direction[n]).sum() for n in got)) == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_vectorised_equals_loop(solver, monkeypatch):
    config = ImplicitHPOConfig(inner_steps=3, solver=solver, cg_tolerance=0.05, init_lr=0.1)
    algorithm, meta = on(ImplicitHPO, config, NETS["warped"])
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(3)])
    found = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        gradient, metrics = algorithm.task_gradients(meta, tasks, seeds=[1, 2, 3])
        found.append({**gradient, **metrics, **algorithm.adapt(meta, tasks, seeds=[1, 2, 3]).params})
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-9, atol=1e-11)


def test_strengths_are_learned_from_tasks_alone():
    """From strengths that hardly let a task adapt they come down, and held-out tasks are fitted better."""
    spec = JobSpec.parse(
        {
            "algorithm": {
                "name": "implicit-hpo",
                "l2": 10.0,
                "init_lr": 0.0,
                "outer_lr": 0.5,
                "inner_solver": "hessian-free",
                "inner_steps": 2,
            },
            "task": {"name": "sinusoid", "shots": 10, "queries": 10},
            "model": {"name": "mlp", "hidden": [6], "activation": "tanh"},
            "training": {"rounds": 15, "meta_batch": 4, "unit": 4},
            "evaluation": {"every": 100, "tasks": 8},
        }
    )
    result = train(spec)
    assert result.metrics["loss"] < 0.95 * result.curve[0]["loss"]
    strengths = {n: float(v.exp()) for n, v in result.meta.params.items() if n.startswith("l2:")}
    assert min(strengths.values()) < 1.0
    assert len(strengths) == 4
    assert all(torch.equal(v, build(spec).init(0).params[n]) for n, v in result.meta.params.items() if ":" not in n)


def test_what_can_be_asked_for():
    def parse(**options):
        return JobSpec.parse({"algorithm": {"name": "implicit-hpo", **options}, "task": "sinusoid", "model": "mlp"})

    assert JobSpec.parse(parse(centre="zero").to_json()) == parse(centre="zero")
    with pytest.raises(InvalidInput, match="does not depend on θ"):
        parse(centre="zero", init_lr=0.1)
    with pytest.raises(InvalidInput, match="weight_decay must be 0"):
        parse(inner_optimiser="adamw")
