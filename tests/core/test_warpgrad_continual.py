"""WarpGrad continual (Algorithm 3): a live learner whose warp moves every η steps, against the same written out."""

from __future__ import annotations

import pytest
import torch

from tests.support.warps import MODELS, Stages, make, plain_loss
from warploom.algorithms.configs.warpgrad_continual import WarpGradContinualConfig
from warploom.algorithms.warpgrad_continual import WarpGradContinual
from warploom.learner import LearnerState, learn_round
from warploom.types import TaskRef

BETA, ALPHA = 0.3, 0.2


def learner(name, **options):
    given = {"warp_lr": BETA, "rates_lr": BETA, "clip_norm": None, **options}
    return make(MODELS[name], WarpGradContinual, WarpGradContinualConfig, **given)


def one_round(algorithm, state, refs):
    seeds = list(range(len(refs)))
    experiences = algorithm.rollout(state.meta, algorithm.family.sample(refs), seeds=seeds)
    return learn_round(algorithm, state, experiences, seed=0)[0]


def lived(algorithm, psi, theta, speed, tasks, *, eta, steps, mu):
    """Algorithm 3 with one task, by the ordinary autograd: full batches, momentum μ, the warp moves every η steps."""
    part = tasks.support_x.shape[1] // algorithm.family.phases
    total, count = {n: torch.zeros_like(v) for n, v in psi.items()}, 0
    for k in range(steps):
        phase = k * algorithm.family.phases // steps
        inner = slice(phase * part, (phase + 1) * part) if algorithm.family.phases > 1 else slice(None)
        outer = slice(0, (phase + 1) * part) if algorithm.family.phases > 1 else slice(None)
        x, y = tasks.support_x[0], tasks.support_y[0]
        phi = {n: v.detach().requires_grad_() for n, v in psi.items()}
        leaves = {n: v.detach().requires_grad_() for n, v in theta.items()}
        value = plain_loss(algorithm, {**phi, **leaves}, {}, x[inner], y[inner])
        slope = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()), create_graph=True), strict=True))
        speed = {n: slope[n] if not mu or (k == 0 and speed is None) else mu * speed[n] + slope[n] for n in leaves}
        rate = {n: phi.get(f"lr:{n}", ALPHA) for n in leaves}
        after = {n: theta[n] - rate[n] * speed[n] for n in leaves}
        found = torch.autograd.grad(
            plain_loss(algorithm, {**phi, **after}, {}, x[outer], y[outer]), list(phi.values()), allow_unused=True
        )
        total = {n: total[n] + g for (n, g) in zip(phi, found, strict=True)}
        count += 1
        theta, speed = ({n: v.detach() for n, v in own.items()} for own in (after, speed))
        if (k + 1) % eta == 0 or k + 1 == steps:
            psi = {n: v - BETA * total[n] / count for n, v in psi.items()}
            total, count = {n: torch.zeros_like(v) for n, v in psi.items()}, 0
    return psi, theta, speed


@pytest.mark.parametrize("initialisation", ["live", "none"])
@pytest.mark.parametrize(
    ("name", "eta", "options"),
    [
        ("linear warp", 1, {}),
        ("linear warp", 2, {}),
        ("vector gate", 5, {"learn_rates": True}),
        ("two-layer BN residual warp", 2, {}),
        ("linear warp", 2, {"family": Stages}),
        ("linear warp", 2, {"inner_optimiser": {"name": "sgd", "momentum": 0.6}}),
    ],
)
def test_two_rounds_are_a_life_written_out(name, eta, options, initialisation):
    algorithm, meta = learner(name, eta=eta, inner_steps=5, initialisation=initialisation, **options)
    if initialisation == "live" and "inner_optimiser" in options:
        fresh = {n: torch.zeros_like(v) for n, v in meta.params.items() if n.startswith("state:")}
        meta.params.update(fresh)
    refs = [TaskRef("train", i, 0) for i in range(2)]
    mu = options.get("inner_optimiser", {}).get("momentum", 0)
    psi, theta, speed = algorithm.split(meta.params)[0], algorithm.start(meta.params), None
    state = LearnerState(meta)
    for ref in refs:
        state = one_round(algorithm, state, [ref])
        if initialisation == "none":
            theta, speed = algorithm.start(meta.params), None
        psi, theta, speed = lived(algorithm, psi, theta, speed, algorithm.family.sample([ref]), eta=eta, steps=5, mu=mu)
    expected = {**psi, **(theta if initialisation == "live" else algorithm.start(meta.params))}
    if initialisation == "live" and mu:
        expected |= {f"state:momentum/{n}": v for n, v in speed.items()} | {"state:step": torch.tensor(10.0).double()}
    assert set(state.meta.params) == set(expected)
    for n, value in expected.items():
        torch.testing.assert_close(state.meta.params[n], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=n: f"{n}: {m}")


def test_where_one_task_ends_and_the_next_begins_makes_no_difference():
    """Four steps in one rollout are two and two, when the stretches of η steps end at the same places."""
    options = {"eta": 2, "inner_optimiser": "adam"}
    long, meta = learner("linear warp", inner_steps=4, **options)
    short, _ = learner("linear warp", inner_steps=2, **options)
    meta.params.update({n: torch.zeros_like(v) for n, v in meta.params.items() if n.startswith("state:")})
    ref = TaskRef("train", 0, 0)
    whole = one_round(long, LearnerState(meta), [ref])
    halves = one_round(short, one_round(short, LearnerState(meta), [ref]), [ref])
    assert float(whole.meta.params["state:step"]) == 4
    for n, value in whole.meta.params.items():
        torch.testing.assert_close(halves.meta.params[n], value, rtol=1e-9, atol=1e-11)


def test_adaptation_starts_where_the_learner_stands():
    algorithm, meta = learner("linear warp", inner_steps=3, inner_optimiser={"name": "sgd", "momentum": 0.6})
    tasks = algorithm.family.sample([TaskRef("test", 0, 0)])
    moved = algorithm.adapt(meta, tasks, seeds=[0], steps=1).params
    for n in algorithm.adaptable:
        still = {**meta.params, f"state:momentum/{n}": torch.zeros_like(meta.params[n])}
        other = algorithm.adapt(type(meta)(0, still), tasks, seeds=[0], steps=1).params
        pushed = other[n][0] - moved[n][0]
        torch.testing.assert_close(pushed, ALPHA * 0.6 * meta.params[f"state:momentum/{n}"], rtol=1e-9, atol=1e-11)


def test_several_learners_are_averaged():
    algorithm, meta = learner("vector FiLM", inner_steps=4, eta=2)
    refs = [TaskRef("train", i, 0) for i in range(3)]
    experiences = algorithm.rollout(meta, algorithm.family.sample(refs), seeds=[0, 1, 2])
    alone = [algorithm.rollout(meta, algorithm.family.sample([r]), seeds=[i])[0] for i, r in enumerate(refs)]
    together = learn_round(algorithm, LearnerState(meta), experiences, seed=0)[0].meta.params
    apart = [learn_round(algorithm, LearnerState(meta), [e], seed=0)[0].meta.params for e in alone]
    for n, value in together.items():
        torch.testing.assert_close(value, torch.stack([own[n] for own in apart]).mean(0), rtol=1e-9, atol=1e-11)


def test_each_move_is_clipped_where_it_is_made():
    free, meta = learner("linear warp", inner_steps=6, eta=2)
    limit = 1e-3
    clipped, _ = learner("linear warp", inner_steps=6, eta=2, clip_norm=limit)
    lengths = []
    for algorithm in (free, clipped):
        after = one_round(algorithm, LearnerState(meta), [TaskRef("train", 0, 0)]).meta.params
        moved = torch.cat([(after[n] - meta.params[n]).flatten() for n in algorithm.model.names("warp")])
        lengths.append(float(moved.norm()) / BETA)
    assert lengths[0] > 10 * limit
    assert lengths[1] == pytest.approx(3 * limit, rel=0.2)
    assert lengths[1] <= 3 * limit * (1 + 1e-9)


def test_vectorised_equals_loop(monkeypatch):
    algorithm, meta = learner(
        "conv gate",
        inner_steps=3,
        eta=2,
        inner_batch=5,
        learn_rates=True,
        inner_optimiser={"name": "sgd", "momentum": 0.6},
    )
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(3)])
    found = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        found.append(algorithm.rollout(meta, tasks, seeds=[1, 2, 3]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.gradient, other.gradient, rtol=1e-8, atol=1e-9)
