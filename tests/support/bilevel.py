"""Two-level problems whose answer is known: linear regression, and central differences for any other net."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig, doubled
from warploom.models.base import make_model
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig
from warploom.models.conv4 import build_conv4
from warploom.models.mlp import build_mlp, build_warp_mlp
from warploom.types import TaskRef

BUILDERS = {"mlp": build_mlp, "warp_mlp": build_warp_mlp, "conv4": build_conv4}
NETS = {
    "tanh net": MLPConfig(hidden=(5,), activation="tanh"),
    "warped": WarpMLPConfig(hidden=(4,), activation="tanh", warp_residual=False),
    "normalised": Conv4Config(layers=1, filters=2, activation="tanh"),
    "normalised by the queries": Conv4Config(layers=1, filters=2, activation="tanh", bn_mode="transductive"),
    "running statistics": Conv4Config(layers=1, filters=2, activation="tanh", bn_mode="running"),
}


def on(implementation, config, net, support=8):
    """An algorithm on noise, with a float64 meta-state in general position."""
    task = NoiseImagesConfig() if isinstance(net, Conv4Config) else NoiseCurvesConfig(support=support)
    model = BUILDERS[net.name](net, task)
    algorithm = implementation(config, model, Noise(task))
    return algorithm, doubled(algorithm.init(1))


def linear(implementation, config):
    """An algorithm on y = W x + b, so that the support loss is a quadratic."""
    task = NoiseCurvesConfig()

    def factory():
        return nn.Sequential(OrderedDict(head=nn.Linear(2, 2)))

    algorithm = implementation(config, make_model(factory, lambda _: "head", "regression"), Noise(task))
    return algorithm, doubled(algorithm.init(1))


def one_task(algorithm, index=0):
    return algorithm.family.sample([TaskRef("train", index, 0)])


def design(x):
    """[B, 2] → [B, 3], a column of ones for the bias."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def joined(values: Mapping[str, torch.Tensor]):
    """Weight [2, 2] and bias [2] of the linear model as Φ [3, 2], so that y = design(x) Φ."""
    return torch.cat([values["head.weight"].mT, values["head.bias"].unsqueeze(0)])


def split(phi):
    return {"head.weight": phi[:2].mT, "head.bias": phi[2]}


def plain_loss(algorithm, params, x, y, stats=None):
    """The loss by the ordinary autograd, apart from the code under test."""
    names = set(algorithm.model.roles)
    own = {name: value for name, value in params.items() if name in names}
    out = functional_call(algorithm.model.module, {**own, **(stats or {})}, (x,))
    return F.cross_entropy(out, y) if algorithm.model.kind == "classification" else ((out - y) ** 2).mean()


def slope_along(algorithm, meta, tasks, objective, names, *, h=1e-5, seed=0):
    """A random direction over these meta-parameters, and the central difference of an objective of the meta-state."""
    gen = torch.Generator().manual_seed(seed)
    direction = {n: torch.randn(meta.params[n].shape, generator=gen, dtype=torch.float64) for n in sorted(names)}

    def at(step):
        moved = {n: meta.params[n] + step * direction[n] for n in names}
        return objective(replace(meta, params={**meta.params, **moved}))

    return direction, (at(h) - at(-h)) / (2 * h)


def query_loss(algorithm, meta, tasks, phi):
    """The loss of the queries as they are predicted, through `predict`, for adapted parameters [1, *shape]."""
    adapted = replace(algorithm.adapt(meta, tasks, seeds=[0], steps=0), params=phi)
    stats = algorithm._stats(meta, phi, algorithm._batches(tasks, [0]), tasks)
    outputs = algorithm.predict(meta, replace(adapted, stats=stats), tasks.query_x)
    kind = algorithm.model.kind
    return float((F.cross_entropy if kind == "classification" else F.mse_loss)(outputs[0], tasks.query_y[0]))
