"""What every line of the tables must keep, whoever adds it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from warploom import registry
from warploom.build import build
from warploom.codec import pack_experiences, unpack_experiences
from warploom.errors import InvalidInput
from warploom.local import train
from warploom.seeding import derive
from warploom.spec import JobSpec
from warploom.types import TaskRef

SMALL_TASKS = {
    "sinusoid": {"shots": 6, "queries": 5},
    "glyphs": {"ways": 3, "shots": 3, "queries": 2, "image_size": 16, "alphabets": 4},
}
SMALL_MODELS = {
    "mlp": {"hidden": [6]},
    "warp_mlp": {"hidden": [6]},
    "conv4": {"layers": 2, "filters": 4},
    "warp_conv4": {"layers": 2, "filters": 4},
}

# A head alone must go further to lower the loss of freshly augmented images.
SMALL_ALGORITHMS = {("anil", "glyphs"): {"inner_lr": 0.3}}


# Families with nets of their own, or losses, or sub-tasks; a round of each algorithm that takes them.
MAZE = {"name": "maze", "cells": 5, "horizon": 5, "episodes": 2, "query_episodes": 2}
OTHERS = [
    (MAZE, {"name": "plastic_rnn", "hidden": 5}),
    (MAZE, {"name": "warp_rnn", "hidden": 5}),
    ({"name": "surfaces"}, {"name": "warp_point", "warp_hidden": 4}),
    ({"name": "continual-sine"}, {"name": "warp_mlp", "hidden": [5]}),
    ({"name": "cosmixture"}, {"name": "warp_mlp", "hidden": [5]}),
    ({"name": "ratings"}, {"name": "mlp", "hidden": [5]}),
]


def other_pairs():
    """The same for the families of `OTHERS`."""
    for algorithm, (task, model) in itertools.product(registry.ALGORITHMS, OTHERS):
        document = {
            "algorithm": {"name": algorithm, "inner_steps": 2, "inner_lr": 0.01},
            "task": task,
            "model": model,
            "training": {"rounds": 1, "meta_batch": 2},
            "evaluation": {"every": 1, "tasks": 1},
        }
        try:
            yield pytest.param(JobSpec.parse(document), id=f"{algorithm}-{task['name']}-{model['name']}")
        except InvalidInput:
            continue


def fitting():
    """Every algorithm with each small family and model that it may be paired with."""
    for algorithm, task, model in itertools.product(registry.ALGORITHMS, SMALL_TASKS, SMALL_MODELS):
        document = {
            "algorithm": {
                "name": algorithm,
                "inner_steps": 3,
                "inner_lr": 0.05,
                **SMALL_ALGORITHMS.get((algorithm, task), {}),
            },
            "task": {"name": task, **SMALL_TASKS[task]},
            "model": {"name": model, **SMALL_MODELS[model]},
            "training": {"rounds": 2, "meta_batch": 2, "unit": 2},
            "evaluation": {"every": 1, "tasks": 2},
        }
        try:
            yield pytest.param(JobSpec.parse(document), id=f"{algorithm}-{task}-{model}")
        except InvalidInput:
            continue


SPECS = list(fitting())


@pytest.mark.parametrize("shelf", registry.TABLES)
def test_entries_load_and_describe_themselves(shelf):
    for name, entry in registry.TABLES[shelf].items():
        config = registry.config_class(shelf, name)
        assert config.model_fields["name"].default == name
        assert config.summary
        assert config.source
        assert registry.load(entry.implementation)


def test_listing_loads_neither_torch_nor_ray():
    code = (
        "import sys; from warploom.catalog import catalog; from warploom.spec import JobSpec; catalog();"
        "JobSpec.parse({'algorithm': 'warpgrad', 'task': 'glyphs', 'model': 'warp_conv4'});"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("spec", list(other_pairs()))
def test_what_the_door_lets_in_trains_a_round(spec):
    result = train(spec)
    assert result.meta.version == 1
    assert all(bool(torch.isfinite(value).all()) for value in result.meta.params.values())


@pytest.mark.parametrize("name", registry.ALGORITHMS)
@pytest.mark.parametrize("model", ["mlp", "warp_mlp"])
def test_what_a_diverging_task_leaves_can_be_stored(name, model):
    """Steps so long that something overflows sooner or later: parameters, a loss, or, the last alone, a gradient."""
    document = {
        "algorithm": {"name": name, "inner_steps": 5},
        "task": {"name": "sinusoid", **SMALL_TASKS["sinusoid"]},
        "model": {"name": model, **SMALL_MODELS[model]},
    }
    diverged = 0
    for lr in (0.5, 1.5, 20.0):
        try:
            spec = JobSpec.parse({**document, "algorithm": {**document["algorithm"], "inner_lr": lr}})
        except InvalidInput as refusal:
            pytest.skip(str(refusal))
        algorithm = build(spec)
        refs = [TaskRef("train", i, 0) for i in range(12)]
        found = algorithm.rollout(algorithm.init(0), algorithm.family.sample(refs), seeds=range(12))
        assert [one.ref for one in unpack_experiences(pack_experiences(found))] == refs
        diverged += sum(bool(one.metrics.get("diverged")) for one in found)
    assert diverged or name in ("none", "anil")  # nothing is learned; a head alone grows too slowly


@pytest.mark.parametrize("spec", SPECS)
class TestAlgorithm:
    """The seam: init, adapt, rollout, meta_gradient."""

    def test_init_depends_on_the_seed_alone(self, spec):
        algorithm = build(spec)
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        one, same, other = algorithm.init(3), algorithm.init(3), algorithm.init(4)
        assert torch.equal(before, torch.random.get_rng_state())
        assert one.version == 0
        assert all(torch.equal(one.params[name], same.params[name]) for name in one.params)
        assert any(not torch.equal(one.params[name], other.params[name]) for name in one.params)

    def test_adapt_moves_the_adaptable_and_lowers_the_support_loss(self, spec):
        algorithm = build(spec)
        meta = algorithm.init(0)
        tasks = algorithm.family.sample([TaskRef("test", i, 0) for i in range(2)])
        adapted = algorithm.adapt(meta, tasks, seeds=[1, 2], steps=15)
        assert set(adapted.params) == algorithm.adaptable
        assert adapted.losses_TK.shape == (2, 16)
        assert bool((adapted.losses_TK[:, -1] < adapted.losses_TK[:, 0]).all())
        outputs = algorithm.predict(meta, adapted, tasks.query_x)
        assert outputs.shape == (*tasks.query_x.shape[:2], spec.task.outputs)

    def test_no_steps_leave_the_initialisation(self, spec):
        algorithm = build(spec)
        meta = algorithm.init(0)
        tasks = algorithm.family.sample([TaskRef("test", 0, 0)])
        adapted = algorithm.adapt(meta, tasks, seeds=[1], steps=0)
        assert all(torch.equal(value[0], meta.params[name]) for name, value in adapted.params.items())

    def test_a_task_is_adapted_the_same_alone_and_in_company(self, spec):
        algorithm = build(spec)
        meta = algorithm.init(0)
        refs = [TaskRef("test", i, 0) for i in range(3)]
        company = algorithm.adapt(meta, algorithm.family.sample(refs), seeds=[1, 2, 3], lr=[0.01, 0.05, 0.02])
        alone = algorithm.adapt(meta, algorithm.family.sample(refs[1:2]), seeds=[2], lr=0.05)
        for name, value in alone.params.items():
            torch.testing.assert_close(company.params[name][1], value[0], rtol=1e-4, atol=1e-5)

    def test_what_was_learned_travels_and_gives_a_gradient(self, spec):
        algorithm = build(spec)
        meta = algorithm.init(0)
        refs = [TaskRef("train", i, 0) for i in range(2)]
        seeds = [derive(0, i) for i in range(2)]
        experiences = algorithm.rollout(meta, algorithm.family.sample(refs), seeds=seeds)
        assert [experience.ref for experience in experiences] == refs
        back = unpack_experiences(pack_experiences(experiences))
        for batch, again in zip(
            algorithm.minibatches(experiences, seed=1), algorithm.minibatches(back, seed=1), strict=True
        ):
            one = algorithm.meta_gradient(meta, batch, seed=2)
            other = algorithm.meta_gradient(meta, again, seed=2)
            assert set(one.values) <= set(algorithm.outer().rates)
            assert one.weight == other.weight
            for name, value in one.values.items():
                assert bool(torch.isfinite(value).all())
                assert torch.equal(value, other.values[name])
