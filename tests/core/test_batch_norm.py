"""Batch normalisation: statistics are handed over, never kept, and never leak between queries."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.families import Noise, NoiseImagesConfig, doubled
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.algorithms.none import NoMeta
from warploom.errors import InvalidInput
from warploom.functional import batch_stats, forward
from warploom.models.base import BatchNorm, make_model
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.conv4 import build_conv4
from warploom.types import Adapted, TaskRef


def learner(mode):
    task = NoiseImagesConfig()
    algorithm = NoMeta(
        NoMetaConfig(inner_steps=3), build_conv4(Conv4Config(layers=2, filters=4, bn_mode=mode), task), Noise(task)
    )
    return algorithm, doubled(algorithm.init(0)), algorithm.family.sample([TaskRef("train", i, 0) for i in range(2)])


def one_by_one(algorithm, meta, adapted, x_TQ):
    return torch.cat([algorithm.predict(meta, adapted, x_TQ[:, q : q + 1]) for q in range(x_TQ.shape[1])], dim=1)


@pytest.mark.parametrize("mode", ["task", "running"])
def test_predicting_one_query_at_a_time_equals_the_batch(mode):
    algorithm, meta, tasks = learner(mode)
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1])
    batch = algorithm.predict(meta, adapted, tasks.query_x)
    torch.testing.assert_close(one_by_one(algorithm, meta, adapted, tasks.query_x), batch, rtol=1e-9, atol=1e-10)


def test_transductive_prediction_depends_on_the_batch():
    algorithm, meta, tasks = learner("transductive")
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1])
    batch = algorithm.predict(meta, adapted, tasks.query_x)
    pairs = torch.cat([algorithm.predict(meta, adapted, tasks.query_x[:, q : q + 2]) for q in (0, 2, 4)], dim=1)
    assert float((batch - pairs).abs().max()) > 1e-3


def test_collected_statistics_reproduce_the_batch():
    algorithm, meta, tasks = learner("task")
    x = tasks.support_x[0]
    stats = batch_stats(algorithm.model, meta.params, x)
    assert set(stats) == {f"norm{i}.{what}" for i in range(2) for what in ("mean", "var")}
    by_batch = forward(algorithm.model, meta.params, x)
    by_stats = forward(algorithm.model, meta.params, x, stats)
    torch.testing.assert_close(by_stats, by_batch, rtol=1e-9, atol=1e-10)


def test_the_statistics_of_a_task_are_those_of_its_support_set():
    algorithm, meta, tasks = learner("task")
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1])
    own = {name: value[1] for name, value in adapted.params.items()}
    expected = batch_stats(algorithm.model, {**meta.params, **own}, tasks.support_x[1])
    for name, value in expected.items():
        torch.testing.assert_close(adapted.stats[name][1], value)


def test_the_module_stays_as_it_was():
    algorithm, meta, tasks = learner("task")
    before = {name: value.clone() for name, value in algorithm.model.module.state_dict().items()}
    algorithm.predict(meta, algorithm.adapt(meta, tasks, seeds=[0, 1]), tasks.query_x)
    after = algorithm.model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(layer.mean.numel() == 0 for layer in algorithm.model.norms().values())


def test_without_statistics_in_an_adapted_model_the_batch_is_used():
    algorithm, meta, tasks = learner("task")
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1], steps=0)
    bare = Adapted(adapted.params, {}, adapted.losses_TK)
    out = algorithm.predict(meta, bare, tasks.support_x)
    torch.testing.assert_close(out, algorithm.predict(meta, adapted, tasks.support_x), rtol=1e-9, atol=1e-10)


def test_a_layer_with_hidden_state_is_refused():
    with pytest.raises(InvalidInput, match="running statistics"):
        make_model(lambda: nn.Sequential(nn.BatchNorm1d(3)), lambda _: "adapt", "regression")


def test_batch_norm_equals_torch():
    x = torch.randn(6, 4, 3, 3)
    torch.testing.assert_close(BatchNorm(4)(x), nn.BatchNorm2d(4)(x).detach(), rtol=1e-5, atol=1e-6)
