"""WarpGrad offline (Algorithm 2): what a path stores, in which order it is learned from, and the initialisation."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from tests.support.warps import MODELS, Stages, along, directional, make, one_step, plain_loss, random_direction
from warploom.codec import pack_experiences, unpack_experiences
from warploom.inner import SupportBatches
from warploom.learner import LearnerState, learn_round, share
from warploom.models.configs.mlp import WarpMLPConfig
from warploom.types import Gradient, TaskRef


def test_a_task_does_not_depend_on_its_neighbours():
    algorithm, meta = make(MODELS["linear warp"], inner_batch=4)
    refs = [TaskRef("train", i, 0) for i in range(3)]
    together = algorithm.rollout(meta, algorithm.family.sample(refs), seeds=[11, 12, 13])
    alone = algorithm.rollout(meta, algorithm.family.sample(refs[1:2]), seeds=[12])[0]
    for name, points in alone.points.items():
        torch.testing.assert_close(together[1].points[name], points, rtol=1e-12, atol=1e-13)


def test_points_are_the_path_of_plain_gradient_descent():
    algorithm, meta = make(MODELS["3x3 conv warp"], inner_steps=4)
    phi, theta = algorithm.fixed(meta.params), algorithm.start(meta.params)
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


@pytest.mark.parametrize("initialisation", ["leap", "leap-simplified"])
def test_leap_is_the_slope_of_the_path_length_with_frozen_end_points(initialisation):
    """Each segment ‖sg[ϑ_k] − ϑ_{k−1}‖, differentiated at its free end by central differences; J ≈ I sums them."""
    algorithm, meta = make(MODELS["residual tanh warp"], inner_steps=5, initialisation=initialisation)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    phi = algorithm.fixed(meta.params)
    x, y = tasks.support_x[0], tasks.support_y[0]
    batches = SupportBatches(tasks.support_x, tasks.support_y, size=None, augment=algorithm.family.augment, seeds=[0])
    steps = list(algorithm._path(meta, tasks, batches, None, None))
    falls = [float(b.loss_T - a.loss_T) for a, b in itertools.pairwise(steps)]
    assert max(falls) < 0, "the stabiliser must be idle here for the comparison to be exact"
    direction = random_direction(algorithm.start(meta.params), torch.Generator().manual_seed(2))
    expected = 0.0
    for before, after in itertools.pairwise(steps):

        def length(free, after=after):
            square = sum(((after.theta_T[n][0] - free[n]) ** 2).sum() for n in free)
            if initialisation == "leap":
                square = square + (after.loss_T[0] - plain_loss(algorithm, {**phi, **free}, {}, x, y)) ** 2
            return square.sqrt()

        expected += directional(length, {n: v[0] for n, v in before.theta_T.items()}, direction)
    got = algorithm.rollout(meta, tasks, seeds=[0])[0].gradient
    assert along(got, direction) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
@pytest.mark.parametrize("initialisation", ["maml", "reptile"])
def test_the_initialisation_by_maml_and_by_reptile(initialisation, rule):
    options = {"name": "sgd", "momentum": 0.7 if rule == "momentum" else 0.0}
    algorithm, meta = make(MODELS["linear warp"], initialisation=initialisation, inner_optimiser=options)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    phi, start = algorithm.fixed(meta.params), algorithm.start(meta.params)
    got = algorithm.rollout(meta, tasks, seeds=[0])[0].gradient

    def end(theta):
        speed = {n: torch.zeros_like(v) for n, v in theta.items()}
        for _ in range(3):
            moved = one_step(algorithm, theta, phi, {}, tasks.support_x[0], tasks.support_y[0])
            speed = {n: options["momentum"] * speed[n] + moved[n] - v for n, v in theta.items()}
            theta = {n: v + speed[n] for n, v in theta.items()}
        return theta

    if initialisation == "reptile":
        torch.testing.assert_close(got, {n: start[n] - v for n, v in end(start).items()})
        return
    gen = torch.Generator().manual_seed(0)
    for _ in range(4):
        direction = random_direction(start, gen)

        def queries(theta):
            return plain_loss(algorithm, {**phi, **end(theta)}, {}, tasks.query_x[0], tasks.query_y[0])

        assert along(got, direction) == pytest.approx(directional(queries, start, direction), rel=1e-6)


@pytest.mark.parametrize("initialisation", ["none", "leap", "leap-simplified", "maml", "reptile"])
def test_a_round_moves_the_initialisation_by_its_own_gradient(initialisation):
    algorithm, meta = make(MODELS["linear warp"], initialisation=initialisation, outer="sgd", init_lr=0.3)
    experiences = algorithm.rollout(
        meta, algorithm.family.sample([TaskRef("train", i, 0) for i in (0, 1)]), seeds=[1, 2]
    )
    after, _ = learn_round(algorithm, LearnerState(meta), experiences, seed=0)
    assert all(not torch.equal(after.meta.params[n], meta.params[n]) for n in algorithm.model.names("warp"))
    for n in algorithm.adaptable:
        pull = sum(e.gradient[n] for e in experiences) / 2 if initialisation != "none" else torch.zeros(())
        torch.testing.assert_close(after.meta.params[n], meta.params[n] - 0.3 * pull)


def test_a_point_is_stored_with_the_state_of_the_optimiser():
    algorithm, meta = make(MODELS["linear warp"], inner_optimiser={"name": "sgd", "momentum": 0.6}, inner_steps=4)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    experience = algorithm.rollout(meta, tasks, seeds=[0])[0]
    plain, _ = make(MODELS["linear warp"])
    assert set(plain.rollout(meta, tasks, seeds=[0])[0].points) == plain.adaptable
    assert set(experience.points) == {
        *algorithm.adaptable,
        "state:step",
        *(f"state:momentum/{n}" for n in algorithm.adaptable),
    }
    assert experience.points["state:step"].tolist() == [0, 1, 2, 3]
    for n in algorithm.adaptable:
        moved = experience.points[n].diff(dim=0) / -0.2
        torch.testing.assert_close(experience.points[f"state:momentum/{n}"][1:], moved, rtol=1e-9, atol=1e-11)
    (back,) = unpack_experiences(pack_experiences([experience], chunk_bytes=100))
    for n, value in experience.points.items():
        assert torch.equal(back.points[n], value)


def test_learned_rates_are_learned():
    options = {"learn_rates": True, "inner_optimiser": {"name": "sgd", "momentum": 0.6}, "rates_lr": 0.01}
    algorithm, meta = make(MODELS["linear warp"], **options)
    fresh = algorithm.init(0).params
    assert all(float(fresh[f"lr:{n}"]) == pytest.approx(0.2) for n in algorithm.adaptable)
    assert all(float(fresh[f"momentum:{n}"]) == pytest.approx(0.6) for n in algorithm.adaptable)
    experiences = algorithm.rollout(meta, algorithm.family.sample([TaskRef("train", 0, 0)]), seeds=[1])
    after, _ = learn_round(algorithm, LearnerState(meta), experiences, seed=0)
    for n in algorithm.adaptable:
        assert float(after.meta.params[f"lr:{n}"]) != float(meta.params[f"lr:{n}"])
        assert float(after.meta.params[f"momentum:{n}"]) != float(meta.params[f"momentum:{n}"])


def test_points_of_several_phases_in_one_minibatch():
    """Batches of different sizes are taken apart and their gradients joined."""
    algorithm, meta = make(MODELS["linear warp"], family=Stages, inner_steps=4, points_per_update=8)
    tasks = algorithm.family.sample([TaskRef("train", i, 0) for i in (0, 1)])
    experiences = algorithm.rollout(meta, tasks, seeds=[1, 2])
    whole = algorithm.meta_gradient(meta, experiences, seed=0)
    ones = [algorithm.meta_gradient(meta, [p], seed=0).values for e in experiences for p in singles(e)]
    assert whole.weight == 8 == len(ones)
    for n, value in whole.values.items():
        torch.testing.assert_close(value, torch.stack([one[n] for one in ones]).mean(0))


def singles(experience):
    return [
        replace(experience, steps=(k,), points={n: v[p : p + 1] for n, v in experience.points.items()})
        for p, k in enumerate(experience.steps)
    ]


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
