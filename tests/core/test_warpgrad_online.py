"""WarpGrad online (Algorithm 1): it is the offline one that sees each point once before any update, in flat memory."""

from __future__ import annotations

import gc

import pytest
import torch

from tests.support.warps import MODELS, Stages, make
from warploom.algorithms.configs.warpgrad_online import WarpGradOnlineConfig
from warploom.algorithms.warpgrad_online import WarpGradOnline
from warploom.learner import LearnerState, learn_round
from warploom.models.configs.mlp import WarpMLPConfig
from warploom.seeding import derive
from warploom.types import TaskRef

STEPS = 4
MOMENTUM = {"name": "sgd", "momentum": 0.7}


def pair(model, tasks=2, **options):
    """The offline algorithm with all points in one minibatch, and the online one."""
    offline, meta = make(model, inner_steps=STEPS, points_per_update=tasks * STEPS, **options)
    online, _ = make(model, WarpGradOnline, WarpGradOnlineConfig, inner_steps=STEPS, **options)
    return offline, online, meta


def same_batches(offline, online, tasks, seeds, monkeypatch):
    """Let the offline algorithm draw for each point what the online one sees there."""
    drawn = {}
    batches = online._batches(tasks, seeds)
    fresh = online._batches(tasks, [derive(seed, "outer") for seed in seeds])
    for k in range(STEPS):
        x_A, y_A = batches.next()
        if k % online.config.record_every == 0:
            x_B, y_B = fresh.seen(k)
            drawn |= {(ref, k): (x_A[t], y_A[t], x_B[t], y_B[t]) for t, ref in enumerate(tasks.refs)}
    monkeypatch.setattr(offline, "_two_batches", lambda ref, k, seed: drawn[ref, k])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear warp", {"outer": "adam"}),
        ("linear warp", {"inner_batch": 3}),
        ("linear warp", {"inner_batch": 3, "initialisation": "maml"}),
        ("vector gate", {"approximate": "eq12", "inner_batch": 3, "initialisation": "reptile"}),
        ("vector gate", {"approximate": "no-step", "inner_batch": 3, "initialisation": "none"}),
        ("residual vector FiLM", {"inner_optimiser": MOMENTUM, "learn_rates": True, "inner_batch": 3}),
        ("linear warp", {"record_every": 3, "inner_batch": 3}),
        ("two-layer BN residual warp", {"inner_batch": 4}),
        ("running statistics", {"inner_optimiser": MOMENTUM}),
        ("designated layer", {"family": Stages, "inner_batch": 2}),
        ("designated layer", {"family": Stages}),
    ],
)
def test_it_agrees_with_offline_when_that_sees_each_point_once_before_any_update(name, options, monkeypatch):
    offline, online, meta = pair(MODELS[name], warp_lr=0.1, init_lr=0.1, rates_lr=0.1, **{"outer": "sgd", **options})
    tasks = offline.family.sample([TaskRef("train", i, 0) for i in range(2)])
    seeds = [11, 12]
    same_batches(offline, online, tasks, seeds, monkeypatch)
    one, other = (algorithm.rollout(meta, tasks, seeds=seeds) for algorithm in (offline, online))
    assert not any(experience.steps for experience in other)
    assert [e.metrics for e in one] == [pytest.approx(e.metrics) for e in other]
    (after, _), (again, metrics) = (
        learn_round(algorithm, LearnerState(meta), experiences, seed=0)
        for algorithm, experiences in ((offline, one), (online, other))
    )
    assert metrics["updates"] == 1
    moved = 0
    for n, value in after.meta.params.items():
        torch.testing.assert_close(again.meta.params[n], value, rtol=1e-7, atol=1e-8)
        moved += not torch.equal(value, meta.params[n])
    assert moved > len(online.outer().rates) / 2
    for n, value in after.meta.stats.items():
        torch.testing.assert_close(again.meta.stats[n], value)


def test_batches_of_the_outer_loss_are_not_those_of_the_step():
    _, online, meta = pair(MODELS["linear warp"], inner_batch=3)
    tasks = online.family.sample([TaskRef("train", 0, 0)])
    steps = []
    visit = online.objective(meta).__class__.visit

    def watched(self, psi, theta, state, *batches, k):
        steps.append([batch[0].tolist() for batch in batches[::2]])
        return visit(self, psi, theta, state, *batches, k=k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warploom.algorithms.base.vectorises", lambda *_: False)
        patch.setattr("warploom.algorithms.warpgrad_objective.Objective.visit", watched)
        online.rollout(meta, tasks, seeds=[5])
    assert len(steps) == STEPS
    assert all(inner != outer for inner, outer in steps)
    assert len({str(step) for step in steps}) == STEPS


@pytest.fixture
def live_numbers():
    """Counts the numbers in tensors made since; none of them may hang on a graph."""
    gc.collect()
    gc.freeze()

    def count():
        gc.collect()
        found = {}
        for thing in gc.get_objects():
            if type(thing) is torch.Tensor:
                assert thing.grad_fn is None
                found[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes() // thing.element_size()
        return sum(found.values())

    yield count
    gc.unfreeze()


@pytest.mark.parametrize("learner", ["online", "offline"])
def test_memory_is_flat_in_steps_but_for_stored_points(learner, monkeypatch, live_numbers):
    """Counted whenever a batch is drawn, over the first and over the second half of the path."""
    options = {"inner_steps": 12, "record_every": 3, "initialisation": "leap"}
    kinds = (WarpGradOnline, WarpGradOnlineConfig) if learner == "online" else ()
    algorithm, meta = make(WarpMLPConfig(hidden=(60, 60)), *kinds, **options)
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    one_point = sum(meta.params[n].numel() for n in algorithm.adaptable)
    counts = []
    draw = algorithm.family.augment

    def counted(x_B, generator):
        counts.append(live_numbers())
        return draw(x_B, generator)

    monkeypatch.setattr(algorithm.family, "augment", counted)
    algorithm.rollout(meta, tasks, seeds=[1])
    half = len(counts) // 2
    growth = (max(counts[half:]) - max(counts[2:half])) / one_point
    assert growth == pytest.approx(2 if learner == "offline" else 0, abs=0.1)
