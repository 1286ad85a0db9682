"""Algorithms on small noise tasks in float64, and their meta-gradients by central differences of what is served."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig, doubled
from warploom.functional import task_loss
from warploom.models.configs.conv4 import Conv4Config, WarpConv4Config
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig
from warploom.models.conv4 import build_conv4, build_warp_conv4
from warploom.models.mlp import build_mlp, build_warp_mlp
from warploom.types import TaskRef

NETS = {
    "mlp": MLPConfig(hidden=(5, 4), activation="tanh"),
    "warp mlp": WarpMLPConfig(hidden=(5,), activation="tanh", warp_activation="tanh"),
    "conv, norms by task": Conv4Config(layers=2, filters=3, activation="tanh"),
    "conv, transductive": Conv4Config(layers=2, filters=3, activation="tanh", bn_mode="transductive"),
    "conv, running": Conv4Config(layers=2, filters=3, activation="tanh", bn_mode="running"),
    "warp conv": WarpConv4Config(layers=1, filters=3, activation="tanh", warp_batch_norm=True),
}
BUILDERS = {"mlp": build_mlp, "warp_mlp": build_warp_mlp, "conv4": build_conv4, "warp_conv4": build_warp_conv4}


def on(implementation, config, net, **task_options):
    """The algorithm on noise, and a float64 meta-state in general position."""
    net = NETS[net] if isinstance(net, str) else net
    image = isinstance(net, Conv4Config)
    task = NoiseImagesConfig(**task_options) if image else NoiseCurvesConfig(**task_options)
    algorithm = implementation(config, BUILDERS[net.name](net, task), Noise(task))
    return algorithm, doubled(algorithm.init(1))


def some_tasks(algorithm, count=1):
    return algorithm.family.sample([TaskRef("train", i, 0) for i in range(count)])


def meta_gradient(algorithm, meta, tasks, seeds=(0,)):
    """The mean over tasks, through rollout and meta-gradient as a learner calls them."""
    experiences = algorithm.rollout(meta, tasks, seeds=list(seeds))
    return algorithm.meta_gradient(meta, experiences, seed=0).values


def served_loss(algorithm, meta, tasks, seeds=(0,)):
    """The mean loss of queries, predicted as a served model does after it was adapted as a served model is."""
    adapted = algorithm.adapt(meta, tasks, seeds=list(seeds))
    outputs_TQ = algorithm.predict(meta, adapted, tasks.query_x)
    losses = [task_loss(algorithm.model.kind, outputs_TQ[t], tasks.query_y[t]) for t in range(tasks.count)]
    return float(torch.stack(losses).mean())


def slopes(gradient, meta, value, names=None, directions=4, h=1e-7):
    """Pairs of slopes along random directions in `names`: by the gradient, and by central differences of `value`.

    A wider difference would meet the steps that max-pooling puts into the gradients of the inner loop.
    """
    gen = torch.Generator().manual_seed(3)
    names = list(gradient) if names is None else names
    for _ in range(directions):
        way = {n: torch.randn(meta.params[n].shape, generator=gen, dtype=torch.float64) for n in names}

        def at(step, way=way):
            return value(replace(meta, params=meta.params | {n: meta.params[n] + step * d for n, d in way.items()}))

        yield float(sum((gradient[n] * way[n]).sum() for n in names)), (at(h) - at(-h)) / (2 * h)


def both_ways(monkeypatch, call):
    """What `call` gives vectorised over tasks, and task by task."""
    found = []
    for vectorise in (True, False):
        monkeypatch.setattr("warploom.algorithms.base.vectorises", lambda *_, v=vectorise: v)
        found.append(call())
    return found


def assert_same(one, other, rtol=1e-9, atol=1e-11):
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
