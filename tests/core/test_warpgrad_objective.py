"""The gradient of Eq 11 and of its approximations against central finite differences in float64."""

from __future__ import annotations

import pytest
import torch

from tests.support.warps import (
    MODELS,
    Stages,
    along,
    directional,
    make,
    one_step,
    plain_loss,
    random_direction,
    slopes,
)
from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.errors import UnfitPair
from warploom.spec import JobSpec
from warploom.types import Experience, TaskRef

FORMS = [False, "eq12", "no-step"]


def point(algorithm, meta):
    """θ, φ and two batches of a task."""
    theta = {n: meta.params[n] for n in algorithm.model.roles if n in algorithm.adaptable}
    tasks = algorithm.family.sample([TaskRef("train", 3, 0)])
    return theta, (tasks.support_x[0], tasks.support_y[0], tasks.query_x[0], tasks.query_y[0])


def check(got, objective, psi, groups=(None,)):
    """`got` is the slope of `objective` at ψ, along random directions in all of it and in each group of names."""
    gen = torch.Generator().manual_seed(0)
    assert set(got) == set(psi)
    for group in groups:
        names = [n for n in psi if group is None or n.startswith(group)]
        assert names
        for _ in range(3):
            direction = random_direction({n: psi[n] for n in names}, gen)
            expected = directional(objective, psi, direction)
            assert along(got, direction) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_finite_differences(name, approximate):
    algorithm, meta = make(MODELS[name], approximate=approximate)
    psi, rest = algorithm.split(meta.params)
    assert set(psi) == set(algorithm.model.names("warp"))
    theta, (x_A, y_A, x_B, y_B) = point(algorithm, meta)
    fixed = {n: v for n, v in rest.items() if n not in theta}
    frozen = one_step(algorithm, theta, {**fixed, **psi}, meta.stats, x_A, y_A)

    def objective(moved):
        phi = {**fixed, **moved}
        after = {
            False: lambda: one_step(algorithm, theta, phi, meta.stats, x_A, y_A),
            "eq12": lambda: frozen,
            "no-step": lambda: theta,
        }[approximate]()
        return plain_loss(algorithm, {**phi, **after}, meta.stats, x_B, y_B)

    check(algorithm.objective(meta).gradient(psi, theta, {}, x_A, y_A, x_B, y_B), objective, psi)


def momentum_step(theta, slope, state, lr, mu):
    """The third step of gradient descent with momentum and dampening 0.1, by hand."""
    return {n: v - lr(n) * (mu(n) * state[f"momentum/{n}"] + 0.9 * slope[n]) for n, v in theta.items()}


def nesterov_step(theta, slope, state, lr, mu):
    """Gradient descent with Nesterov's momentum."""
    kept = {n: mu(n) * state[f"momentum/{n}"] + slope[n] for n in theta}
    return {n: v - lr(n) * (slope[n] + mu(n) * kept[n]) for n, v in theta.items()}


def plain_step(theta, slope, state, lr, mu):
    return {n: v - lr(n) * slope[n] for n, v in theta.items()}


RULES = {
    "plain": ({}, plain_step),
    "momentum": ({"momentum": 0.8, "dampening": 0.1}, momentum_step),
    "nesterov": ({"momentum": 0.8, "nesterov": True}, nesterov_step),
}


@pytest.mark.parametrize("learn_rates", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["linear warp", "two-layer BN residual warp", "vector gate"])
def test_learned_rates_and_stored_momentum(name, rule, learn_rates):
    options, step = RULES[rule]
    algorithm, meta = make(MODELS[name], learn_rates=learn_rates, inner_optimiser={"name": "sgd", **options})
    psi, _ = algorithm.split(meta.params)
    theta, (x_A, y_A, x_B, y_B) = point(algorithm, meta)
    gen = torch.Generator().manual_seed(8)
    state = {
        n: torch.randn(v.shape, generator=gen, dtype=torch.float64) for n, v in algorithm.optimiser.init(theta).items()
    }
    if state:
        state["step"] = torch.tensor(2.0, dtype=torch.float64)

    def objective(moved):
        slope = slopes(algorithm, theta, moved, {}, x_A, y_A)
        lr = (lambda n: moved[f"lr:{n}"]) if learn_rates else (lambda n: 0.2)
        mu = (lambda n: moved[f"momentum:{n}"]) if learn_rates and options else (lambda n: 0.8)
        return plain_loss(algorithm, {**moved, **step(theta, slope, state, lr, mu)}, {}, x_B, y_B)

    groups = [None, "warp", *(["lr:"] if learn_rates else []), *(["momentum:"] if learn_rates and options else [])]
    expected = {f"{g}{n}" for g in groups if g in ("lr:", "momentum:") for n in theta} | set(
        algorithm.model.names("warp")
    )
    assert set(psi) == expected
    check(algorithm.objective(meta).gradient(psi, theta, state, x_A, y_A, x_B, y_B), objective, psi, groups)


@pytest.mark.parametrize("name", ["linear warp", "two-layer BN residual warp"])
def test_the_closed_form_for_plain_descent_is_the_general_one(name, monkeypatch):
    """It differentiates no step: a step without derivatives gives the same."""
    algorithm, meta = make(MODELS[name], inner_optimiser={"name": "sgd", "weight_decay": 0.3})
    psi, _ = algorithm.split(meta.params)
    theta, batches = point(algorithm, meta)
    short, general = algorithm.objective(meta), algorithm.objective(meta)
    general._plain = False
    expected = general.gradient(psi, theta, {}, *batches)
    step = algorithm.optimiser.step

    def constant(*args):
        moved, state = step(*args)
        return {n: v.detach() for n, v in moved.items()}, state

    monkeypatch.setattr(algorithm.optimiser, "step", constant)
    got = short.gradient(psi, theta, {}, *batches)
    for n in psi:
        torch.testing.assert_close(got[n], expected[n], rtol=1e-11, atol=1e-13)
    lost = general.gradient(psi, theta, {}, *batches)
    assert max(float((lost[n] - expected[n]).abs().max()) for n in psi) > 1e-3


@pytest.mark.parametrize("rule", ["adam", "rmsprop", "adagrad"])
def test_any_inner_optimiser_from_its_stored_state(rule):
    """The step is the optimiser's own (proved elsewhere); its derivatives are by differences of its values."""
    algorithm, meta = make(MODELS["residual tanh warp"], learn_rates=True, inner_lr=0.05, inner_optimiser=rule)
    tasks = algorithm.family.sample([TaskRef("train", 3, 0)])
    experience = algorithm.rollout(meta, tasks, seeds=[0])[0]
    theta = {n: experience.points[n][2] for n in algorithm.adaptable}
    state = {n.removeprefix("state:"): v[2] for n, v in experience.points.items() if n.startswith("state:")}
    assert float(state["step"]) == 2
    psi, _ = algorithm.split(meta.params)
    x_A, y_A, x_B, y_B = tasks.support_x[0], tasks.support_y[0], tasks.query_x[0], tasks.query_y[0]

    def objective(moved):
        slope = slopes(algorithm, theta, moved, {}, x_A, y_A)
        rates = {n: moved[f"lr:{n}"] for n in theta}
        after, _ = algorithm.optimiser.step(theta, slope, state, {**algorithm.optimiser.settings(), "lr": rates})
        return plain_loss(algorithm, {**moved, **after}, {}, x_B, y_B)

    check(
        algorithm.objective(meta).gradient(psi, theta, state, x_A, y_A, x_B, y_B), objective, psi, (None, "warp", "lr:")
    )


class OwnLoss(Stages):
    """Two sub-tasks after each other, and a loss of its own."""

    def loss(self, model, params, x_B, y_B, stats):
        return super().loss(model, params, x_B, y_B, stats) + 0.3 * sum(
            v.square().sum() for n, v in params.items() if n.endswith("weight")
        )


def staged_loss(algorithm, params, stats, x, y):
    decay = sum(v.square().sum() for n, v in params.items() if n.endswith("weight") and n in algorithm.model.roles)
    return plain_loss(algorithm, params, stats, x, y) + 0.3 * decay


@pytest.mark.parametrize("model", ["linear warp", "designated norms"])
def test_phases_and_the_familys_own_loss(model):
    """From k = 2 of K = 4 on the second half of the support set is on, and the outer loss is of both halves."""
    algorithm, meta = make(MODELS[model], family=OwnLoss, inner_steps=4)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0), TaskRef("train", 1, 0)])
    experiences = algorithm.rollout(meta, tasks, seeds=[0, 1])
    half = tasks.support_x.shape[1] // 2
    psi, _ = algorithm.split(meta.params)
    theta = {n: meta.params[n] for n in algorithm.adaptable}
    parts = []
    for k in range(4):
        torch.testing.assert_close({n: experiences[0].points[n][k] for n in theta}, theta, rtol=1e-9, atol=1e-11)
        parts.append((theta, slice(0, half) if k < 2 else slice(half, 2 * half), slice(0, half if k < 2 else 2 * half)))
        theta = one_step(
            algorithm,
            theta,
            psi,
            {},
            tasks.support_x[0, parts[-1][1]],
            tasks.support_y[0, parts[-1][1]],
            loss=staged_loss,
        )
    chosen = Experience(experiences[0].ref, 0, (1, 3), {n: v[[1, 3]] for n, v in experiences[0].points.items()})
    got = algorithm.meta_gradient(meta, [chosen], seed=4)
    assert got.weight == 2

    def objective(moved):
        total = 0.0
        for theta, inner, outer in (parts[1], parts[3]):
            after = one_step(
                algorithm, theta, moved, {}, tasks.support_x[0, inner], tasks.support_y[0, inner], loss=staged_loss
            )
            total += staged_loss(
                algorithm, {**moved, **after}, {}, tasks.support_x[0, outer], tasks.support_y[0, outer]
            )
        return total / 2

    check(got.values, objective, psi)


def test_the_forms_differ():
    found = []
    for approximate in FORMS:
        algorithm, meta = make(MODELS["linear warp"], initialisation="none", approximate=approximate)
        experiences = algorithm.rollout(meta, algorithm.family.sample([TaskRef("train", 0, 0)]), seeds=[1])
        found.append(algorithm.meta_gradient(meta, experiences, seed=0).values)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert max(float((found[i][n] - found[j][n]).abs().max()) for n in found[0]) > 1e-4


LEARNED = {"learn_rates": True, "inner_optimiser": {"name": "sgd", "momentum": 0.7}}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vector FiLM", LEARNED),
        ("conv gate", {"inner_optimiser": {"name": "adam", "eps": 1e-3}, "inner_lr": 0.05}),
        ("two-layer BN residual warp", {"initialisation": "maml"}),
        ("running statistics", {"approximate": "no-step"}),
        ("running statistics", LEARNED),
    ],
)
def test_vectorised_equals_loop(name, options, monkeypatch):
    algorithm, meta = make(MODELS[name], inner_batch=5, inner_steps=2, **options)
    refs = [TaskRef("train", i, 0) for i in range(3)]
    tasks = algorithm.family.sample(refs)
    results = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        adapted = algorithm.adapt(meta, tasks, seeds=[1, 2, 3])
        experiences = algorithm.rollout(meta, tasks, seeds=[1, 2, 3])
        results.append(
            {
                **adapted.params,
                **{f"stat {n}": v for n, v in adapted.stats.items()},
                "losses": adapted.losses_TK,
                "outputs": algorithm.predict(meta, adapted, tasks.query_x),
                **{f"grad {n}": v for n, v in algorithm.meta_gradient(meta, experiences, seed=7).values.items()},
                **{f"point {n}": v for n, v in experiences[1].points.items()},
                **{f"init {n}": v for n, v in experiences[2].gradient.items()},
            }
        )
    vectorised, looped = results
    for key, value in vectorised.items():
        torch.testing.assert_close(value, looped[key], rtol=1e-8, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")


def test_an_asked_step_size_scales_the_learned_ones():
    algorithm, meta = make(MODELS["linear warp"], learn_rates=True)
    tasks = algorithm.family.sample([TaskRef("test", 0, 0)])
    theta = {n: meta.params[n] for n in algorithm.adaptable}
    slope = slopes(algorithm, theta, algorithm.fixed(meta.params), {}, tasks.support_x[0], tasks.support_y[0])
    adapted = algorithm.adapt(meta, tasks, seeds=[0], steps=1, lr=0.1)
    for n, v in theta.items():
        assert float(meta.params[f"lr:{n}"]) != 0.2
        torch.testing.assert_close(adapted.params[n][0], v - 0.5 * meta.params[f"lr:{n}"] * slope[n])


def test_options_in_json():
    for given, form in ((False, "exact"), (True, "eq12"), ("eq12", "eq12"), ("no-step", "no-step")):
        assert WarpGradConfig(approximate=given).form == form
    with pytest.raises(ValueError, match="learn_rates needs"):
        WarpGradConfig(learn_rates=True, approximate=True)
    document = {"algorithm": {"name": "warpgrad", "inner_optimiser": "rprop"}, "task": "sinusoid", "model": "warp_mlp"}
    with pytest.raises(UnfitPair, match="rprop moves by the gradient's sign"):
        JobSpec.parse(document)
    assert JobSpec.parse({**document, "algorithm": {**document["algorithm"], "approximate": True}})
