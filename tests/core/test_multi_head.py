"""Multi-head training against plain SGD on all tasks at once, and the bookkeeping of its heads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig, doubled
from tests.support.unrolled import NETS, assert_same, both_ways
from warploom.algorithms.configs.multi_head import MultiHeadConfig
from warploom.algorithms.multi_head import MultiHead
from warploom.errors import UnfitPair
from warploom.learner import LearnerState, learn_round, share
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.conv4 import build_conv4
from warploom.models.mlp import build_mlp
from warploom.spec import JobSpec
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.types import TaskRef

COUNT = 3


class Numbered(Noise):
    """Three training tasks, that come round and round with other data at each visit."""

    def size(self, split):
        return COUNT if split == "train" else None

    def identity(self, ref):
        return ref.index % COUNT if ref.split == "train" else None


def make(net="mlp", **options):
    net = NETS[net]
    image = isinstance(net, Conv4Config)
    task = NoiseImagesConfig() if image else NoiseCurvesConfig()
    model = (build_conv4 if image else build_mlp)(net, task)
    algorithm = MultiHead(MultiHeadConfig(**{"inner_lr": 0.1, "inner_steps": 3, **options}), model, Numbered(task))
    return algorithm, doubled(algorithm.init(1))


def refs(*indices):
    return [TaskRef("train", i, 5) for i in indices]


def first_visit(algorithm, number):
    return algorithm.family.sample([TaskRef("train", number, 0)])


def rollout(algorithm, meta, *indices, seeds=None):
    tasks = algorithm.family.sample(refs(*indices))
    return algorithm.rollout(meta, tasks, seeds=list(indices) if seeds is None else seeds)


def slopes(algorithm, theta, tasks):
    """The plain gradient of one task's loss."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    outputs = functional_call(algorithm.model.module, leaves, (tasks.support_x[0],))
    y = tasks.support_y[0]
    loss = F.cross_entropy(outputs, y) if algorithm.model.kind == "classification" else ((outputs - y) ** 2).mean()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def with_head(algorithm, meta, number):
    """θ of a training task: the trunk and its own head, under the model's names."""
    return {
        n: meta.params[n if n in algorithm.model.names("adapt") else f"head:{number}:{n}"] for n in algorithm.adaptable
    }


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task"])
def test_a_round_of_one_step_is_plain_sgd_on_all_tasks(net):
    algorithm, meta = make(net, round_steps=1)
    grads = [slopes(algorithm, with_head(algorithm, meta, n), first_visit(algorithm, n)) for n in (2, 0)]
    expected = dict(meta.params)
    for name in algorithm.model.names("adapt"):
        expected[name] = meta.params[name] - 0.1 * (grads[0][name] + grads[1][name]) / 2
    for name in algorithm.model.names("head"):
        expected[f"head:2:{name}"] = meta.params[f"head:2:{name}"] - 0.1 * grads[0][name]
        expected[f"head:0:{name}"] = meta.params[f"head:0:{name}"] - 0.1 * grads[1][name]
    after, _ = learn_round(algorithm, LearnerState(meta), rollout(algorithm, meta, 2, 3), seed=0)
    assert_same(after.meta.params, expected)


def test_a_round_of_several_steps_walks_trunk_and_own_head():
    algorithm, meta = make(inner_steps=7, round_steps=3)
    theta = with_head(algorithm, meta, 1)
    for _ in range(3):
        step = slopes(algorithm, theta, first_visit(algorithm, 1))
        theta = {name: value - 0.1 * step[name] for name, value in theta.items()}
    after, _ = learn_round(algorithm, LearnerState(meta), rollout(algorithm, meta, 1), seed=0)
    assert_same(with_head(algorithm, after.meta, 1), theta)
    default, _ = make(inner_steps=3)
    (same,) = rollout(algorithm, meta, 1)
    (other,) = rollout(default, meta, 1)
    assert_same(dict(same.gradient), dict(other.gradient))


def test_heads_of_a_task_that_was_visited_twice_are_averaged():
    algorithm, meta = make(inner_batch=4)
    visits = rollout(algorithm, meta, 0, 3, 1, seeds=[11, 12, 13])
    after, _ = learn_round(algorithm, LearnerState(meta), visits, seed=0)
    own = [experience.gradient["head:0:head.bias"] for experience in visits[:2]]
    assert not torch.allclose(*own)
    torch.testing.assert_close(after.meta.params["head:0:head.bias"], meta.params["head:0:head.bias"] - sum(own) / 2)
    alone = visits[2].gradient["head:1:head.bias"]
    torch.testing.assert_close(after.meta.params["head:1:head.bias"], meta.params["head:1:head.bias"] - alone)
    assert torch.equal(after.meta.params["head:2:head.bias"], meta.params["head:2:head.bias"])
    trunk = sum(experience.gradient["layer0.bias"] for experience in visits) / 3
    torch.testing.assert_close(after.meta.params["layer0.bias"], meta.params["layer0.bias"] - trunk)


@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_a_round_join_to_the_whole(world):
    algorithm, meta = make()
    (batch,) = algorithm.minibatches(rollout(algorithm, meta, 0, 1, 3, 2, 4), seed=0)
    whole = algorithm.meta_gradient(meta, batch, seed=0)
    parts = [algorithm.meta_gradient(meta, share(batch, rank, world), seed=0) for rank in range(world)]
    assert all(set(part.values) == set(whole.values) for part in parts)
    joined = {n: sum(p.values[n] * p.weight for p in parts) / sum(p.weight for p in parts) for n in whole.values}
    assert_same(joined, whole.values)


def test_a_diverged_task_has_no_say():
    algorithm, meta = make()
    sound, lost = rollout(algorithm, meta, 0, 1)
    (batch,) = algorithm.minibatches([sound, replace(lost, gradient={})], seed=0)
    got = algorithm.meta_gradient(meta, batch, seed=0).values
    assert_same(got, dict(sound.gradient))
    assert list(algorithm.minibatches([replace(lost, gradient={})], seed=0)) == [[]]


def test_a_training_task_is_the_same_at_each_visit():
    algorithm, meta = make()
    one, other = (rollout(algorithm, meta, i, seeds=[7])[0] for i in (1, 4))
    assert one.ref != other.ref
    assert one.metrics == other.metrics
    assert_same(dict(one.gradient), dict(other.gradient))


def test_a_new_task_starts_from_the_trunk_and_a_head_of_its_own():
    algorithm, meta = make()
    new = algorithm.family.sample([TaskRef("test", 0, 0)])
    start = algorithm.adapt(meta, new, seeds=[0], steps=0).params
    assert_same({n: v[0] for n, v in start.items()}, {n: meta.params[n] for n in algorithm.adaptable})
    after = LearnerState(meta)
    for _ in range(3):
        after, _ = learn_round(algorithm, after, rollout(algorithm, after.meta, 0, 1, 2), seed=0)
    moved = {n for n in meta.params if not torch.equal(meta.params[n], after.meta.params[n])}
    assert moved == set(algorithm.outer().rates) == set(meta.params) - set(algorithm.model.names("head"))


def test_heads_are_drawn_apart_and_a_fresh_one_may_be_zero():
    algorithm, _ = make()
    zero, _ = make(fresh_head="zero")
    params, flat = algorithm.init(3).params, zero.init(3).params
    heads = [params["head.weight"], *(params[f"head:{n}:head.weight"] for n in range(COUNT))]
    assert len({tuple(head.flatten().tolist()) for head in heads}) == 1 + COUNT
    assert not flat["head.weight"].any()
    assert not flat["head.bias"].any()
    assert torch.equal(flat["head:1:head.weight"], params["head:1:head.weight"])


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = make(net, inner_batch=5)
    one, other = both_ways(monkeypatch, lambda: rollout(algorithm, meta, 0, 1, 5))
    for ours, theirs in zip(one, other, strict=True):
        assert_same(dict(ours.gradient), dict(theirs.gradient), rtol=1e-8, atol=1e-10)


def test_families_without_numbered_tasks_are_refused():
    document = {"algorithm": "multi-head", "model": "mlp"}
    with pytest.raises(UnfitPair, match="numbered training tasks; use glyphs, ratings, or omniglot with protocol"):
        JobSpec.parse({**document, "task": "sinusoid"})
    with pytest.raises(UnfitPair, match="needs numbered training tasks"):
        JobSpec.parse({**document, "task": {"name": "omniglot", "protocol": "few-shot"}})
    assert JobSpec.parse({**document, "task": "glyphs"}).task == GlyphsConfig()
    assert JobSpec.parse({**document, "task": "omniglot"}).task == OmniglotConfig()
    algorithm, _ = make()
    with pytest.raises(UnfitPair, match="needs numbered training tasks"):
        MultiHead(algorithm.config, algorithm.model, Noise(NoiseCurvesConfig()))
