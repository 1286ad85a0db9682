"""`surfaces` with `point` and `warp_point`: heights by hand, and what WarpGrad says of the geometry of Ω.

No average gain over gradient descent is claimed anywhere, so none is tested.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.func import grad, jacrev, vmap

from tests.support.tasks import check_function_of_the_ref
from warploom.build import build
from warploom.errors import UnfitPair
from warploom.evaluation import evaluate
from warploom.functional import forward
from warploom.local import train
from warploom.models.configs.point import PointConfig, WarpPointConfig
from warploom.models.point import build_point, build_warp_point
from warploom.spec import JobSpec
from warploom.tasks.configs.surfaces import SurfacesConfig
from warploom.tasks.surfaces import Surfaces, height, lowest_place
from warploom.types import TaskRef

PEAKS = torch.tensor([5, 1, 1, 1, 3, 10, 1 / 3], dtype=torch.float64)
ROUGH = torch.tensor([3, -1, 0, 1, 4, -5, 2], dtype=torch.float64)
ALGORITHMS = {
    "none": "point",
    "maml": "point",
    "reptile": "point",
    "leap": "point",
    "warpgrad": "warp_point",
    "warpgrad-online": "warp_point",
}


def spec(algorithm, model, **model_options):
    return JobSpec.parse(
        {
            "algorithm": {"name": algorithm, "inner_lr": 0.1, "inner_steps": 5},
            "task": "surfaces",
            "model": {"name": model, **model_options},
            "training": {"rounds": 3, "meta_batch": 4, "unit": 4},
            "evaluation": {"every": 100, "tasks": 3},
        }
    )


def test_a_task_is_a_function_of_its_ref():
    check_function_of_the_ref({"name": "surfaces"})


def test_heights_are_those_of_matlabs_peaks():
    # The published extrema of `peaks`.
    for place, value in (((-0.0093, 1.5814), 8.1062), ((0.2283, -1.6255), -6.5511), ((-1.3474, 0.2045), -3.0498)):
        assert float(height(torch.tensor(place, dtype=torch.float64), PEAKS)) == pytest.approx(value, abs=1e-4)
    # By hand at the origin: b1 a1² e^(−a2²) − b3 e^(−a3²).
    assert float(height(torch.zeros(2), PEAKS)) == pytest.approx((3 - 1 / 3) / math.e)


def test_each_term_by_hand():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for at, value in ((4, 4 * math.exp(-2)), (5, -(1 / 4 - 1 - 32) * math.exp(-5)), (6, -math.exp(-4 - 4))):
        surface = torch.tensor([4, -1, -1, 1, 0, 0, 0], dtype=torch.float64)
        surface[at] = 1
        assert float(height(x, surface)) == pytest.approx(value, rel=1e-12)
    printed = float(height(x, torch.tensor([4.0, -1, -1, 1, 0, 0, 1], dtype=torch.float64), printed=True))
    assert printed == pytest.approx(-math.exp(-4 - 1), rel=1e-12)


def test_the_lowest_place_is_lowest():
    torch.testing.assert_close(lowest_place(PEAKS), torch.tensor([0.2283, -1.6255]).double(), rtol=0, atol=1e-4)
    gen = torch.Generator().manual_seed(0)
    places = 6 * torch.rand(20_000, 2, generator=gen, dtype=torch.float64) - 3
    tasks = Surfaces(SurfacesConfig(starts=1)).sample([TaskRef("train", i, 0) for i in range(20)])
    for row in tasks.support_y[:, 0].double():
        assert float(height(row[:2], row[2:])) <= float(height(places, row[2:]).min()) + 1e-6
        assert row[:2].abs().max() <= 3


def test_draws_have_the_papers_ranges_and_each_surface_its_starts():
    family = Surfaces(SurfacesConfig(starts=3))
    tasks = family.sample([TaskRef("train", i, 0) for i in range(900)])
    assert tasks.support_x.shape == tasks.support_y.shape == (900, 1, 9)
    assert torch.equal(tasks.support_x, tasks.query_x)
    rows = tasks.support_x[:, 0]
    surfaces = rows[:, 2:].view(300, 3, 7)
    assert bool((surfaces == surfaces[:, :1]).all())
    assert set(surfaces[:, 0, 0].tolist()) == set(range(1, 11))
    assert set(surfaces[:, 0, 1:4].flatten().tolist()) == {-1, 0, 1}
    assert set(surfaces[:, 0, 4:].flatten().tolist()) == set(range(-5, 6))
    starts = rows[:, :2]
    assert starts.min() < -2.95
    assert starts.max() > 2.95
    assert starts.abs().max() <= 3
    assert abs(starts.mean()) < 0.15
    assert len({tuple(start) for start in starts.tolist()}) == 900


@pytest.mark.parametrize("printed", [False, True])
def test_the_loss_is_the_height_at_the_moved_start(printed):
    family = Surfaces(SurfacesConfig(printed=printed))
    tasks = family.sample([TaskRef("test", 3, 0)])
    x, y = tasks.support_x[0].double(), tasks.support_y[0].double()
    model = build_point(PointConfig(), family.config)
    theta = torch.tensor([0.3, -0.7], dtype=torch.float64)
    expected = height(x[0, :2] + theta, x[0, 2:], printed=printed)
    assert float(family.loss(model, {"theta": theta}, x, y, {})) == pytest.approx(float(expected), rel=1e-12)
    moved = forward(model, {"theta": theta}, x)
    found = family.scores(moved, y)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-12)
    assert found["regret"] == pytest.approx(float(expected - height(y[0, :2], y[0, 2:], printed=printed)), abs=1e-6)
    assert family.scores(y, y)["regret"] == 0


def warped(residual, seed=0, size=0.3):
    """Ω of `warp_point` in float64 with every parameter moved, so that it is not the identity."""
    model = build_warp_point(WarpPointConfig(warp_residual=residual), SurfacesConfig())
    gen = torch.Generator().manual_seed(seed)
    params = {
        name: value.double() + size * torch.randn(value.shape, generator=gen, dtype=torch.float64)
        for name, value in model.initial(seed).items()
    }
    params["theta"] = torch.zeros(2, dtype=torch.float64)
    surface_row = torch.cat([torch.zeros(2, dtype=torch.float64), ROUGH])

    def omega(place):
        row = torch.cat([place, surface_row[2:]]).unsqueeze(0)
        return forward(model, params, row)[0, :2]

    return model, params, omega


@pytest.mark.parametrize("residual", [True, False])
def test_omega_is_a_two_layer_net_of_thirty_tanh_units(residual):
    model, params, omega = warped(residual)
    assert model.roles == {
        "theta": "adapt",
        **dict.fromkeys(["warp.first.weight", "warp.first.bias", "warp.second.weight", "warp.second.bias"], "warp"),
    }
    place = torch.tensor([0.4, -1.2], dtype=torch.float64)
    hidden = torch.tanh(params["warp.first.weight"] @ place + params["warp.first.bias"])
    assert hidden.shape == (30,)
    expected = params["warp.second.weight"] @ hidden + params["warp.second.bias"] + residual * place
    torch.testing.assert_close(omega(place), expected, rtol=1e-12, atol=1e-12)


def test_the_residual_omega_starts_as_the_identity():
    model = build_warp_point(WarpPointConfig(spread=0), SurfacesConfig())
    x = Surfaces(SurfacesConfig()).sample([TaskRef("train", 0, 0)]).support_x[0]
    assert torch.equal(forward(model, model.initial(1), x), x)


@pytest.mark.parametrize("residual", [True, False])
def test_adaptation_follows_eq_7(residual):
    """Δθ = [D Ω]ᵀ ∇L(γ): what the inner loop descends along is the gradient pulled back through Ω."""
    model, params, omega = warped(residual)
    place = torch.tensor([0.7, -0.4], dtype=torch.float64)
    row = torch.cat([place, ROUGH]).unsqueeze(0)
    family = Surfaces(SurfacesConfig())
    slope = grad(lambda theta: family.loss(model, {**params, "theta": theta}, row, row, {}))(params["theta"])
    pulled = jacrev(omega)(place).T @ grad(lambda gamma: height(gamma, ROUGH))(omega(place))
    torch.testing.assert_close(slope, pulled, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_eq_9_holds_to_second_order(residual):
    """(L∘Ω)(θ − αΔθ) = L(γ − αΔγ) + O(α²), with Δγ = G⁻¹∇L(γ) and G⁻¹ = [D Ω][D Ω]ᵀ: slope 2 in log α."""
    _, _, omega = warped(residual)
    alphas = torch.tensor([2.0**-k for k in range(8, 15)], dtype=torch.float64)
    gen = torch.Generator().manual_seed(3)
    for place in 4 * torch.rand(5, 2, generator=gen, dtype=torch.float64) - 2:
        gamma, J = omega(place), jacrev(omega)(place)
        down = grad(lambda g: height(g, ROUGH))(gamma)
        gaps = torch.stack(
            [
                height(omega(place - a * (J.T @ down)), ROUGH) - height(gamma - a * (J @ J.T @ down), ROUGH)
                for a in alphas
            ]
        ).abs()
        slopes = (gaps[:-1] / gaps[1:]).log2()
        assert abs(float(slopes[-1]) - 2) < 0.1, (place, gaps)
        # A gap of a lower order would show where the metric is the wrong way round.
        wrong = (
            height(omega(place - alphas[-1] * (J.T @ down)), ROUGH) - height(gamma - alphas[-1] * down, ROUGH)
        ).abs()
        assert wrong > 100 * gaps[-1]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("residual", [True, False])
def test_the_inverse_metric_is_positive_definite(residual, trained):
    model, params, omega = warped(residual)
    if trained:
        found = train(spec("warpgrad", "warp_point", warp_residual=residual)).meta.params
        fresh = model.initial(0)
        assert any(not torch.equal(found[name], fresh[name]) for name in model.names("warp"))
        params.update({name: found[name].double() for name in model.names("warp")})
    line = torch.linspace(-3, 3, 20, dtype=torch.float64)
    places = torch.cartesian_prod(line, line)
    J = vmap(jacrev(omega))(places)
    metric = J @ J.transpose(1, 2)
    assert float(torch.linalg.eigvalsh(metric).min()) > 0
    downhill = vmap(grad(lambda gamma: height(gamma, ROUGH)))(vmap(omega)(places))
    assert bool((torch.einsum("pi,pij,pj->p", downhill, metric, downhill) > 0).all())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithms_run_on_it_and_walk_down(algorithm):
    job = spec(algorithm, ALGORITHMS[algorithm])
    algorithm = build(job)
    meta = train(job).meta
    refs = [TaskRef("test", i, 0) for i in range(6)]
    found = evaluate(algorithm, meta, refs, steps=30, lr=0.02)
    assert found["diverged"] == 0
    assert found["loss"] < found["support_loss_before"] - 0.05
    assert found["regret"] > 0


def test_vectorised_equals_loop(monkeypatch):
    algorithm = build(spec("warpgrad", "warp_point"))
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in (0, 4, 11)])
    meta = algorithm.init(0)
    found = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        adapted = algorithm.adapt(meta, tasks, seeds=[1, 2, 3])
        found.append((adapted.params["theta"], adapted.losses_TK, algorithm.predict(meta, adapted, tasks.query_x)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_maml_differentiates_the_familys_loss():
    job = spec("maml", "point")
    algorithm = build(job)
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in (0, 17)])
    tasks = replace(tasks, **{c: getattr(tasks, c).double() for c in ("support_x", "support_y", "query_x", "query_y")})
    meta = algorithm.init(0)
    theta = meta.params["theta"].double()
    got = algorithm.task_gradients(replace(meta, params={"theta": theta}), tasks, seeds=[0, 1])[0]["theta"]

    def end(place, surface):
        for _ in range(5):
            place = place - 0.1 * grad(lambda p: height(p, surface))(place)
        return height(place, surface)

    h = 1e-5
    for t, i in itertools.product(range(2), range(2)):
        row, step = tasks.support_x[t, 0], h * torch.eye(2, dtype=torch.float64)[i]
        up, down = (end(row[:2] + theta + sign * step, row[2:]) for sign in (1, -1))
        assert float(got[t, i]) == pytest.approx(float((up - down) / (2 * h)), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(
    ("algorithm", "task", "model", "words"),
    [
        ("none", "sinusoid", "point", "goes with task surfaces, other tasks with mlp or warp_mlp"),
        ("warpgrad", "surfaces", "point", "models that fit: .*warp_point"),
        ("anil", "surfaces", "point", "needs"),
        ("multi-head", "surfaces", "point", "multi-head"),
        ("none", "surfaces", "conv4", "takes images"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(algorithm, task, model, words):
    with pytest.raises(UnfitPair, match=words):
        JobSpec.parse({"algorithm": algorithm, "task": task, "model": model})
