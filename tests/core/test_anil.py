"""ANIL: only the head adapts, all is learned, and the trunk is computed once."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from tests.support.families import Noise, NoiseCurvesConfig, doubled
from tests.support.unrolled import assert_same, both_ways, meta_gradient, on, served_loss, slopes, some_tasks
from warploom.adaptation import ServedModel, Support
from warploom.algorithms.anil import ANIL, cut_before_head
from warploom.algorithms.configs.anil import ANILConfig
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.maml import MAML
from warploom.build import build
from warploom.codec import pack_model
from warploom.models.base import BatchNorm, make_model
from warploom.models.configs.conv4 import Conv4Config
from warploom.spec import JobSpec

CONFIG = ANILConfig(inner_lr=0.2, inner_steps=3)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("mlp", {}),
        ("mlp", {"inner_batch": 3, "inner_optimiser": {"name": "sgd", "momentum": 0.5}}),
        ("warp mlp", {}),
        ("conv, norms by task", {}),
        ("conv, norms by task", {"inner_batch": 6}),
        ("conv, transductive", {}),
        ("conv, running", {}),
    ],
)
def test_the_meta_gradient_is_the_slope_of_what_is_served(net, options):
    algorithm, meta = on(ANIL, ANILConfig(inner_lr=0.2, inner_steps=3, **options), net)
    tasks = some_tasks(algorithm, 2)
    gradient = meta_gradient(algorithm, meta, tasks, (4, 5))
    assert set(gradient) == set(algorithm.model.roles)
    for along, expected in slopes(gradient, meta, lambda m: served_loss(algorithm, m, tasks, (4, 5))):
        assert along == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"truncate": 1}, {"truncate": 0}, {"inner_batch": 5}])
def test_where_all_is_head_it_is_maml(options):
    """A net without a trunk, with which nothing is left to tell the two apart."""

    def net():
        first, last = nn.Linear(2, 5), nn.Linear(5, 2)
        return nn.Sequential(OrderedDict(head=nn.Sequential(first, nn.Tanh(), last)))

    task = NoiseCurvesConfig()
    model = make_model(net, lambda _: "head", "regression")
    anil = ANIL(ANILConfig(inner_lr=0.2, inner_steps=3, **options), model, Noise(task))
    maml = MAML(MAMLConfig(inner_lr=0.2, inner_steps=3, **options), model, Noise(task))
    meta, tasks = doubled(anil.init(0)), some_tasks(anil)
    assert_same(meta_gradient(anil, meta, tasks), meta_gradient(maml, meta, tasks), rtol=0, atol=0)
    assert_same(anil.adapt(meta, tasks, seeds=[0]).params, maml.adapt(meta, tasks, seeds=[0]).params, rtol=0, atol=0)


@pytest.mark.parametrize("net", ["mlp", "warp mlp", "conv, norms by task", "conv, running", "warp conv"])
@pytest.mark.parametrize("options", [{}, {"inner_batch": 5}, {"truncate": 1}])
def test_features_once_or_the_whole_net_at_each_step_are_the_same(net, options):
    algorithm, meta = on(ANIL, ANILConfig(inner_lr=0.2, inner_steps=3, **options), net)
    tasks = some_tasks(algorithm, 2)
    assert algorithm._parts is not None
    quick = meta_gradient(algorithm, meta, tasks, (1, 2))
    algorithm._parts = None
    assert_same(quick, meta_gradient(algorithm, meta, tasks, (1, 2)))


@pytest.mark.parametrize(("inner_batch", "expected"), [(None, 1), (5, 4)])
def test_the_trunk_sees_each_different_batch_once(inner_batch, expected):
    algorithm, meta = on(ANIL, ANILConfig(inner_steps=4, inner_batch=inner_batch), "mlp")
    seen = []
    algorithm.model.module.layer0.register_forward_hook(lambda *_: seen.append(1))
    algorithm.task_gradients(meta, some_tasks(algorithm), seeds=[0])
    assert len(seen) == expected + 1  # the queries


def test_a_net_that_cannot_be_cut_is_computed_whole():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Linear(2, 4), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(x) * self.trunk(x).tanh().sum(-1, keepdim=True)

    model = make_model(Branches, lambda n: "head" if n.startswith("head") else "adapt", "regression")
    assert cut_before_head(model) is None
    algorithm = ANIL(CONFIG, model, Noise(NoiseCurvesConfig()))
    meta, tasks = doubled(algorithm.init(0)), some_tasks(algorithm)
    for along, expected in slopes(
        meta_gradient(algorithm, meta, tasks), meta, lambda m: served_loss(algorithm, m, tasks)
    ):
        assert along == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_head_with_norms_or_in_two_places_is_not_cut_off():
    def normed():
        return nn.Sequential(OrderedDict(a=nn.Linear(2, 3), head=nn.Sequential(nn.Linear(3, 2), BatchNorm(2))))

    def two():
        return nn.Sequential(OrderedDict(head0=nn.Linear(2, 3), head1=nn.Linear(3, 2)))

    role = lambda name: "head" if name.startswith("head") else "adapt"  # noqa: E731
    assert cut_before_head(make_model(normed, role, "regression")) is None
    assert cut_before_head(make_model(two, role, "regression")) is None


def test_only_the_head_adapts():
    algorithm, meta = on(ANIL, CONFIG, "conv, norms by task")
    tasks = some_tasks(algorithm, 2)
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1])
    assert set(adapted.params) == {"head.weight", "head.bias"}
    assert all(not torch.equal(v[0], meta.params[n]) for n, v in adapted.params.items())
    assert set(algorithm.outer().rates) == set(algorithm.model.roles)


@pytest.mark.parametrize("net", ["mlp", "conv, norms by task", "conv, running"])
def test_vectorised_equals_loop(net, monkeypatch):
    algorithm, meta = on(ANIL, ANILConfig(inner_steps=3, inner_batch=5), net)
    tasks = some_tasks(algorithm, 3)
    one, other = both_ways(monkeypatch, lambda: algorithm.rollout(meta, tasks, seeds=[1, 2, 3]))
    for a, b in zip(one, other, strict=True):
        assert_same(a.gradient, b.gradient)
        assert_same(a.stats, b.stats)


def test_a_served_model_answers_with_its_head_alone():
    document = {
        "algorithm": {"name": "anil", "inner_lr": 0.1},
        "task": {"name": "glyphs", "ways": 3, "shots": 2, "queries": 2, "image_size": 16, "alphabets": 4},
        "model": Conv4Config(layers=2, filters=4).model_dump(),
    }
    spec = JobSpec.parse(document)
    algorithm = build(spec)
    served = ServedModel.load(pack_model(spec, algorithm.init(0)))
    tasks = some_tasks(algorithm)
    request = Support(tasks.support_x[0], tasks.support_y[0], tasks.query_x[0], steps=5, lr=0.1, seed=1)
    (answer,) = served.adapt([request])
    assert set(answer.params) == {"head.weight", "head.bias"}
    torch.testing.assert_close(served.predict(answer.params, answer.stats, request.x_Q), answer.outputs_Q)
    torch.testing.assert_close(answer.outputs_Q.sum(1), torch.ones(6))
