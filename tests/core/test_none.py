"""No meta-training: plain training of each task, by the inner optimiser that the job names."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from tests.support.unrolled import assert_same, on, some_tasks
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.algorithms.none import NoMeta
from warploom.learner import LearnerState, learn_round

RULES = {
    "sgd": ({"name": "sgd", "momentum": 0.9}, lambda leaves: torch.optim.SGD(leaves, lr=0.05, momentum=0.9)),
    "adam": ({"name": "adam"}, lambda leaves: torch.optim.Adam(leaves, lr=0.05)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_task_is_trained_as_by_torch(rule):
    ours, theirs = RULES[rule]
    algorithm, meta = on(NoMeta, NoMetaConfig(inner_optimiser=ours, inner_lr=0.05, inner_steps=12), "mlp")
    tasks = some_tasks(algorithm, 2)
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1])
    for t in range(2):
        leaves = {name: value.clone().requires_grad_() for name, value in meta.params.items()}
        optimiser = theirs(list(leaves.values()))
        for _ in range(12):
            optimiser.zero_grad()
            outputs = functional_call(algorithm.model.module, leaves, (tasks.support_x[t],))
            ((outputs - tasks.support_y[t]) ** 2).mean().backward()
            optimiser.step()
        assert_same({n: v[t] for n, v in adapted.params.items()}, {n: v.detach() for n, v in leaves.items()})


@pytest.mark.parametrize("rule", RULES)
def test_a_round_teaches_nothing(rule):
    algorithm, meta = on(NoMeta, NoMetaConfig(inner_optimiser=RULES[rule][0]), "mlp")
    tasks = some_tasks(algorithm, 2)
    experiences = algorithm.rollout(meta, tasks, seeds=[0, 1])
    after, metrics = learn_round(algorithm, LearnerState(meta), experiences, seed=0)
    assert_same(after.meta.params, meta.params, rtol=0, atol=0)
    assert after.meta.version == 1
    assert metrics["support_loss"] < metrics["support_loss_first"]
