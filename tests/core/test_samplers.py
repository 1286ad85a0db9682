"""Which units a sample holds: orders, epochs, probabilities, and what is promised to tasks."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warploom.build import build
from warploom.learner import weighted_gradient
from warploom.local import train
from warploom.local_replay import LocalReplay
from warploom.replay import Chunk, ReplayPlan
from warploom.rollout import priority_of
from warploom.samplers import Sampler, Stored, SumTree, chances, choose
from warploom.spec import JobSpec
from warploom.types import Experience, TaskRef


def stored(count, **fields):
    return [
        Stored(unit, **{"version": 0, "parts": 1} | {k: v[unit] for k, v in fields.items()}) for unit in range(count)
    ]


def drawn(sampler, units, n, seed=0, version=0, epoch=1):
    picks, epoch = choose(sampler, units, n, seed=seed, version=version, epoch=epoch)
    return [pick.stored.unit for pick in picks], picks, epoch


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.data())
def test_a_sum_tree_finds_what_a_running_sum_finds(weights, data):
    tree = SumTree(weights)
    for _ in range(3):
        index = data.draw(st.integers(0, len(weights) - 1))
        weights[index] = data.draw(st.floats(0, 1e6))
        tree.put(index, weights[index])
    assert tree.total == pytest.approx(sum(weights))
    if tree.total == 0:
        return
    for share in (0.0, 0.3, 0.7, 1 - 1e-16):
        found = tree.find(share * tree.total)
        assert weights[found] > 0
        slack = 1e-6 * tree.total
        assert sum(weights[:found]) - slack <= share * tree.total <= sum(weights[: found + 1]) + slack


def test_orders():
    units = stored(6)
    assert drawn(Sampler(name="fifo"), units, 3)[0] == [0, 1, 2]
    assert drawn(Sampler(name="consuming"), units, 2)[0] == [0, 1]
    assert drawn(Sampler(name="lifo"), units, 3)[0] == [5, 4, 3]


def test_an_epoch_draws_every_unit_once_and_then_begins_anew():
    epochs, epoch, seen = [0] * 5, 1, []
    for seed in range(10):
        chosen, picks, epoch = drawn(Sampler(name="without_replacement"), stored(5, epoch=epochs), 2, seed, epoch=epoch)
        assert len(set(chosen)) == 2
        for pick in picks:
            epochs[pick.stored.unit] = pick.epoch
        seen += chosen
    assert sorted(Counter(seen).values()) == [4] * 5
    assert epoch == 4


@pytest.mark.parametrize(
    ("sampler", "units"),
    [
        (Sampler(name="prioritized", uniform_share=0.2), stored(4, priority=[0.1, 1.0, 5.0, 30.0])),
        (Sampler(name="fresh", half_life=1.5), stored(4, version=[0, 1, 2, 3])),
    ],
)
def test_units_are_drawn_as_often_as_the_formula_says(sampler, units):
    expected = chances(sampler, units, 3)
    assert sum(expected) == pytest.approx(1)
    first = Counter(drawn(sampler, units, 1, seed, version=3)[0][0] for seed in range(4000))
    for unit, chance in enumerate(expected):
        assert first[unit] / 4000 == pytest.approx(chance, abs=0.03)
    assert all(len(set(drawn(sampler, units, 3, seed, version=3)[0])) == 3 for seed in range(50))


def test_chances_by_hand():
    alike = Sampler(name="prioritized", priority_exponent=1.0, uniform_share=0.1)
    assert chances(alike, stored(2, priority=[1.0, 3.0]), 0) == pytest.approx([0.9 * 0.25 + 0.05, 0.9 * 0.75 + 0.05])
    halves = Sampler(name="fresh", half_life=2.0, uniform_share=0.1)
    assert chances(halves, stored(2, version=[0, 2]), 2) == pytest.approx([0.9 / 3 + 0.05, 0.9 * 2 / 3 + 0.05])


def test_importance_weights_undo_the_bias():
    """With β = 1 the weights times the probabilities are the same for all units."""
    sampler = Sampler(name="prioritized", importance_exponent=1.0)
    units = stored(3, priority=[0.5, 2.0, 9.0])
    probabilities = chances(sampler, units, 0)
    picks = drawn(sampler, units, 3)[1]
    products = [pick.weight * probabilities[pick.stored.unit] for pick in picks]
    assert products == pytest.approx([min(probabilities)] * 3)
    assert max(pick.weight for pick in picks) == 1.0


def test_a_weighted_gradient_is_the_weighted_mean():
    spec = JobSpec.parse({"algorithm": "maml", "task": "sinusoid", "model": "mlp"})
    algorithm = build(spec)
    meta = algorithm.init(0)
    batch = [
        Experience(TaskRef("train", i, 0), 0, gradient={"w": torch.tensor([float(i + 1)])}, weight=weight)
        for i, weight in enumerate([0.5, 1.0, 0.5, 0.25])
    ]
    gradient = weighted_gradient(algorithm, meta, batch, seed=0)
    assert gradient.weight == 4
    assert float(gradient.values["w"]) == pytest.approx((0.5 * 1 + 2 + 0.5 * 3 + 0.25 * 4) / 4)


def test_priorities_come_from_what_is_left_to_learn():
    def unit(*losses):
        return [Experience(TaskRef("train", 0, 0), 0, metrics={"support_loss": loss}) for loss in losses]

    assert priority_of(unit(1.0, 3.0, float("nan"))) == 2.0
    assert priority_of(unit(float("inf"))) == priority_of(unit(0.0)) == 1e-6


def run(name, *, tasks, rounds=300, **options):
    """Uses of each of a few tasks that units visit in turn; one of them is much harder than the others."""
    units_per_round = 4
    plan = ReplayPlan(
        mode="async", units_per_round=units_per_round, rounds=rounds, max_bytes=10**6, ahead=4,
        sampler=Sampler(name=name), **options,
    )  # fmt: skip
    replay = LocalReplay(plan)
    replay.reset(0)
    replay.publish(0, b"")
    uses = Counter()
    for version in range(rounds):
        while claim := replay.claim("w"):
            hard = 50.0 if claim.unit % tasks == 0 else 1.0
            assert replay.append(Chunk(claim.unit, 0, 1, version, b"x", hard)) == "accepted"
        taken = replay.sample(units_per_round, version)
        assert taken, f"{name} is stuck at {version}"
        uses.update(unit.number % tasks for unit in taken)
        replay.publish(version + 1, b"")
    return uses, replay.stats()


@pytest.mark.parametrize("name", ["uniform", "fifo", "consuming", "without_replacement", "lifo", "fresh"])
def test_tasks_of_a_small_family_are_used_alike(name):
    uses, stats = run(name, tasks=3)
    shares = [count / sum(uses.values()) for count in uses.values()]
    assert len(shares) == 3
    assert max(shares) - min(shares) < 0.06, "whatever its priority, and however few they are"
    assert stats.sampled == 1200


def test_a_hard_task_is_used_more_often_but_does_not_starve_the_others():
    uses, _ = run("prioritized", tasks=5, samples_per_insert=2.0)
    assert uses[0] > 1.3 * max(uses[task] for task in range(1, 5))
    assert min(uses.values()) / sum(uses.values()) > 0.1 / 5


def test_no_unit_is_used_more_often_than_allowed():
    _, free = run("lifo", tasks=3, samples_per_insert=2.0)
    _, capped = run("lifo", tasks=3, samples_per_insert=2.0, max_times_sampled=2)
    assert free.sampled == capped.sampled == 1200


@pytest.mark.parametrize("sampler", ["prioritized", "fresh", "lifo", "without_replacement"])
def test_a_job_ends_with_every_sampler(sampler):
    spec = JobSpec.parse(
        {
            "algorithm": {"name": "warpgrad", "inner_lr": 0.01, "inner_steps": 3, "points_per_update": 8},
            "task": "sinusoid",
            "model": {"name": "warp_mlp", "hidden": [8]},
            "training": {"mode": "async", "rounds": 6, "meta_batch": 4, "unit": 2},
            "evaluation": {"every": 6, "tasks": 2},
            "replay": {"sampler": sampler, "samples_per_insert": 2.0, "max_times_sampled": 4},
        }
    )
    result = train(spec)
    assert result.meta.version == 6
    assert all(bool(torch.isfinite(value).all()) for value in result.meta.params.values())
