"""WarpGrad's gradients against finite differences in float64, and its bookkeeping."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig, doubled
from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.algorithms.warpgrad import LeapGradient, WarpGrad, warp_gradients
from warploom.inner import SupportBatches
from warploom.learner import share
from warploom.models.configs.conv4 import WarpConv4Config
from warploom.models.configs.mlp import WarpMLPConfig
from warploom.models.conv4 import build_warp_conv4
from warploom.models.mlp import build_warp_mlp
from warploom.types import Gradient, TaskRef

MODELS = {
    "linear warp": WarpMLPConfig(hidden=(5, 4), activation="tanh", warp_residual=False),
    "residual tanh warp": WarpMLPConfig(hidden=(5,), activation="sigmoid", warp_activation="tanh"),
    "3x3 conv warp": WarpConv4Config(layers=2, filters=3, activation="tanh"),
    "1x1 conv warp": WarpConv4Config(layers=2, filters=3, activation="tanh", warp_kernel=1),
    "two-layer BN residual warp": WarpConv4Config(
        layers=2,
        filters=3,
        activation="tanh",
        warp_layers=2,
        warp_batch_norm=True,
        warp_residual=True,
        warp_activation="sigmoid",
    ),
    "warped head": WarpConv4Config(layers=1, filters=3, activation="sigmoid", warp_final_head=True),
    "running statistics": WarpConv4Config(layers=2, filters=3, activation="tanh", bn_mode="running"),
}


def make(model_config, **options):
    image = isinstance(model_config, WarpConv4Config)
    task = NoiseImagesConfig() if image else NoiseCurvesConfig()
    model = (build_warp_conv4 if image else build_warp_mlp)(model_config, task)
    algorithm = WarpGrad(WarpGradConfig(**{"inner_lr": 0.2, "inner_steps": 3, **options}), model, Noise(task))
    return algorithm, doubled(algorithm.init(1))


def plain_loss(algorithm, params, stats, x, y):
    out = functional_call(algorithm.model.module, {**params, **stats}, (x,))
    return F.cross_entropy(out, y) if algorithm.model.kind == "classification" else ((out - y) ** 2).mean()


def one_step(algorithm, theta, phi, stats, x, y):
    """θ − α ∇θ L by the ordinary autograd, apart from the code under test."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    slopes = torch.autograd.grad(plain_loss(algorithm, {**phi, **leaves}, stats, x, y), list(leaves.values()))
    return {name: theta[name] - 0.2 * slope for name, slope in zip(leaves, slopes, strict=True)}


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_meta_gradient_is_that_of_finite_differences(name, approximate):
    algorithm, meta = make(MODELS[name], approximate=approximate)
    warps = algorithm.model.names("warp")
    phi = {n: meta.params[n] for n in meta.params if n not in algorithm.adaptable}
    theta = {n: meta.params[n] for n in algorithm.adaptable}
    tasks = algorithm.family.sample([TaskRef("train", 3, 0)])
    x_A, y_A, x_B, y_B = tasks.support_x[0], tasks.support_y[0], tasks.query_x[0], tasks.query_y[0]
    frozen = one_step(algorithm, theta, phi, meta.stats, x_A, y_A)

    def objective(moved):
        after = frozen if approximate else one_step(algorithm, theta, moved, meta.stats, x_A, y_A)
        return plain_loss(algorithm, {**moved, **after}, meta.stats, x_B, y_B)

    got = warp_gradients(
        algorithm.model,
        {n: v.unsqueeze(0) for n, v in theta.items()},
        phi,
        tuple(v.unsqueeze(0) for v in (x_A, y_A, x_B, y_B)),
        lr=0.2,
        warps=warps,
        stats=meta.stats,
        approximate=approximate,
        vectorise=False,
    )
    assert set(got) == set(warps)
    gen = torch.Generator().manual_seed(0)
    h = 1e-5
    for _ in range(6):
        direction = {n: torch.randn(meta.params[n].shape, generator=gen, dtype=torch.float64) for n in warps}
        up = objective({**phi, **{n: phi[n] + h * direction[n] for n in warps}})
        down = objective({**phi, **{n: phi[n] - h * direction[n] for n in warps}})
        expected = float((up - down) / (2 * h))
        along = float(sum((got[n][0] * direction[n]).sum() for n in warps))
        assert along == pytest.approx(expected, rel=2e-6, abs=1e-9)


def test_exact_and_approximate_form_differ():
    exact, meta = make(MODELS["linear warp"], initialisation="none")
    approximate, _ = make(MODELS["linear warp"], initialisation="none", approximate=True)
    experiences = exact.rollout(meta, exact.family.sample([TaskRef("train", 0, 0)]), seeds=[1])
    one = exact.meta_gradient(meta, experiences, seed=0).values
    other = approximate.meta_gradient(meta, experiences, seed=0).values
    assert max(float((one[n] - other[n]).abs().max()) for n in one) > 1e-4


@pytest.mark.parametrize("name", ["linear warp", "3x3 conv warp", "two-layer BN residual warp", "running statistics"])
def test_vectorised_equals_loop(name, monkeypatch):
    algorithm, meta = make(MODELS[name], inner_batch=5)
    refs = [TaskRef("train", i, 0) for i in range(4)]
    tasks = algorithm.family.sample(refs)
    results = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        monkeypatch.setattr("warploom.algorithms.warpgrad.vectorises", lambda *_, v=vectorise: v)
        adapted = algorithm.adapt(meta, tasks, seeds=[1, 2, 3, 4])
        experiences = algorithm.rollout(meta, tasks, seeds=[1, 2, 3, 4])
        gradient = algorithm.meta_gradient(meta, experiences, seed=7).values
        outputs = algorithm.predict(meta, adapted, tasks.query_x)
        results.append(
            {
                **adapted.params,
                **{f"stat {n}": v for n, v in adapted.stats.items()},
                "losses": adapted.losses_TK,
                "outputs": outputs,
                **{f"grad {n}": v for n, v in gradient.items()},
                **{f"init {n}": v for n, v in experiences[2].gradient.items()},
            }
        )
    vectorised, looped = results
    for key, value in vectorised.items():
        torch.testing.assert_close(value, looped[key], rtol=1e-9, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")


def test_a_task_does_not_depend_on_its_neighbours():
    algorithm, meta = make(MODELS["linear warp"], inner_batch=4)
    refs = [TaskRef("train", i, 0) for i in range(3)]
    together = algorithm.rollout(meta, algorithm.family.sample(refs), seeds=[11, 12, 13])
    alone = algorithm.rollout(meta, algorithm.family.sample(refs[1:2]), seeds=[12])[0]
    for name, points in alone.points.items():
        torch.testing.assert_close(together[1].points[name], points, rtol=1e-12, atol=1e-13)


def test_points_are_the_path_of_plain_gradient_descent():
    algorithm, meta = make(MODELS["3x3 conv warp"], inner_steps=4)
    phi = {n: meta.params[n] for n in meta.params if n not in algorithm.adaptable}
    theta = {n: meta.params[n] for n in algorithm.adaptable}
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    experience = algorithm.rollout(meta, tasks, seeds=[0])[0]
    assert experience.steps == (0, 1, 2, 3)
    for k in range(4):
        for name, value in theta.items():
            torch.testing.assert_close(experience.points[name][k], value, rtol=1e-9, atol=1e-11)
        theta = one_step(algorithm, theta, phi, {}, tasks.support_x[0], tasks.support_y[0])


def test_thinning_keeps_every_nth_point_and_the_same_initialisation_gradient():
    algorithm, meta = make(MODELS["linear warp"], inner_steps=7)
    thin, _ = make(MODELS["linear warp"], inner_steps=7, record_every=3)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    full, kept = algorithm.rollout(meta, tasks, seeds=[0])[0], thin.rollout(meta, tasks, seeds=[0])[0]
    assert kept.steps == (0, 3, 6)
    for name, points in kept.points.items():
        assert torch.equal(points, full.points[name][::3])
        assert torch.equal(kept.gradient[name], full.gradient[name])


@pytest.mark.parametrize("with_loss", [True, False])
def test_leap_is_the_slope_of_the_path_length_with_frozen_end_points(with_loss):
    """Each segment ‖sg[ϑ_k] − ϑ_{k−1}‖, differentiated at its free end by central differences; J ≈ I sums them."""
    algorithm, meta = make(MODELS["residual tanh warp"], inner_steps=5)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    phi = {n: meta.params[n] for n in meta.params if n not in algorithm.adaptable}
    x, y = tasks.support_x[0], tasks.support_y[0]
    batches = SupportBatches(tasks.support_x, tasks.support_y, size=None, augment=algorithm.family.augment, seeds=[0])
    steps = list(algorithm._path(meta, tasks, batches, None, None))
    leap = LeapGradient(with_loss=with_loss)
    for step in steps:
        leap.add(step)

    def at(theta):
        return plain_loss(algorithm, {**phi, **theta}, {}, x, y)

    falls = [float(b.loss_T - a.loss_T) for a, b in itertools.pairwise(steps)]
    assert max(falls) < 0, "the stabiliser must be idle here for the comparison to be exact"
    gen = torch.Generator().manual_seed(2)
    direction = {n: torch.randn(v.shape, generator=gen, dtype=torch.float64) for n, v in steps[0].theta_T.items()}
    expected = 0.0
    for before, after in itertools.pairwise(steps):

        def length(h, before=before, after=after):
            free = {n: v[0] + h * direction[n][0] for n, v in before.theta_T.items()}
            square = sum(((after.theta_T[n][0] - free[n]) ** 2).sum() for n in free)
            if with_loss:
                square = square + (after.loss_T[0] - at(free)) ** 2
            return float(square.sqrt())

        expected += (length(1e-6) - length(-1e-6)) / 2e-6
    along = float(sum((leap.gradient_T[n] * direction[n]).sum() for n in direction))
    assert along == pytest.approx(expected, rel=1e-5)


def test_leap_stabiliser_turns_an_uphill_step_round():
    from warploom.inner import InnerStep

    one = torch.ones(1, 1, dtype=torch.float64)
    leap = LeapGradient(with_loss=True)
    leap.add(InnerStep(0, {"w": 0 * one}, {"w": 2 * one}, torch.tensor([1.0], dtype=torch.float64)))
    leap.add(InnerStep(1, {"w": -3 * one}, {}, torch.tensor([5.0], dtype=torch.float64)))
    # Δθ = −3, ΔL = +4 → −4; ‖(−3, −4)‖ = 5; −(−3 + (−4)·2)/5 = 2.2
    assert float(leap.gradient_T["w"]) == pytest.approx(2.2)


def test_minibatches_use_each_point_once_then_the_initialisation():
    algorithm, meta = make(MODELS["linear warp"], inner_steps=5, points_per_update=4)
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(3)])
    experiences = algorithm.rollout(meta, tasks, seeds=[1, 2, 3])
    batches = list(algorithm.minibatches(experiences, seed=9))
    seen = [(e.ref.index, e.steps[0]) for batch in batches[:-1] for e in batch]
    assert [len(batch) for batch in batches] == [4, 4, 4, 3, 3]
    assert sorted(seen) == sorted(itertools.product(range(3), range(5)))
    assert seen != sorted(seen)
    assert all(e.gradient and not e.steps for e in batches[-1])
    again = [
        (e.ref.index, e.steps[0]) for batch in list(algorithm.minibatches(experiences, seed=9))[:-1] for e in batch
    ]
    other = [
        (e.ref.index, e.steps[0]) for batch in list(algorithm.minibatches(experiences, seed=8))[:-1] for e in batch
    ]
    assert again == seen != other


@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_a_minibatch_join_to_the_whole(world):
    algorithm, meta = make(MODELS["linear warp"], inner_steps=4)
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(2)])
    experiences = algorithm.rollout(meta, tasks, seeds=[1, 2])
    batch = next(algorithm.minibatches(experiences, seed=0)) + next(algorithm.minibatches(experiences, seed=1))
    batch += next(algorithm.minibatches(experiences, seed=2))
    whole = algorithm.meta_gradient(meta, batch, seed=5).values
    parts = [algorithm.meta_gradient(meta, share(batch, rank, world), seed=5) for rank in range(world)]
    total = sum(part.weight for part in parts)
    for name in whole:
        joined = sum(part.values[name] * part.weight for part in parts) / total
        torch.testing.assert_close(joined, whole[name], rtol=1e-12, atol=1e-13)


def test_a_diverged_path_gives_only_its_finite_points_and_no_initialisation_gradient():
    algorithm, meta = make(WarpMLPConfig(hidden=(5, 4)), inner_steps=40, inner_lr=100.0)
    experience = algorithm.rollout(meta, algorithm.family.sample([TaskRef("train", 0, 0)]), seeds=[0])[0]
    assert experience.metrics["diverged"] == 1.0
    assert 0 < len(experience.steps) < 40
    assert not experience.gradient
    assert all(bool(torch.isfinite(value).all()) for value in experience.points.values())


def test_without_learned_initialisation_only_the_warp_moves():
    algorithm, meta = make(MODELS["linear warp"], initialisation="none")
    assert set(algorithm.outer().rates) == set(algorithm.model.names("warp"))
    experience = algorithm.rollout(meta, algorithm.family.sample([TaskRef("train", 0, 0)]), seeds=[0])[0]
    assert not experience.gradient
    assert [len(b) for b in algorithm.minibatches([experience], seed=0)] == [1, 1, 1]


def test_ready_gradients_are_averaged():
    algorithm, meta = make(MODELS["linear warp"])
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in range(2)])
    a, b = (replace(e, steps=(), points={}) for e in algorithm.rollout(meta, tasks, seeds=[1, 2]))
    got = algorithm.meta_gradient(meta, [a, b], seed=0)
    assert isinstance(got, Gradient)
    for name, value in got.values.items():
        torch.testing.assert_close(value, (a.gradient[name] + b.gradient[name]) / 2)
