"""Warped nets of every kind in float64, and WarpGrad's objective written out with the ordinary autograd."""

from __future__ import annotations

import torch
from torch.func import functional_call
from torch.nn import functional as F

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig, doubled
from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.algorithms.warpgrad import WarpGrad
from warploom.models.configs.conv4 import Conv4Config, WarpConv4Config
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig
from warploom.models.conv4 import build_conv4
from warploom.models.mlp import build_mlp

CONV = {"layers": 2, "filters": 3, "activation": "tanh"}
STRONG = {"warp_layers": 2, "warp_batch_norm": True, "warp_residual": True, "warp_activation": "sigmoid"}
MODELS = {
    "linear warp": WarpMLPConfig(hidden=(5, 4), activation="tanh", warp_residual=False),
    "residual tanh warp": WarpMLPConfig(hidden=(5,), activation="sigmoid", warp_activation="tanh"),
    "vector FiLM": WarpMLPConfig(hidden=(5, 4), activation="tanh", warp_kind="film", warp_residual=False),
    "residual vector FiLM": WarpMLPConfig(hidden=(5,), activation="tanh", warp_kind="film", warp_activation="tanh"),
    "vector gate": WarpMLPConfig(hidden=(5, 4), activation="tanh", warp_kind="gate", warp_residual=False),
    "designated layer": MLPConfig(hidden=(5, 4), activation="tanh", warp_pattern=("layer1.*",)),
    "designated head": MLPConfig(hidden=(5,), activation="tanh", warp_pattern=("head.*", "layer0.bias")),
    "3x3 conv warp": WarpConv4Config(**CONV),
    "1x1 conv warp": WarpConv4Config(**CONV, warp_kernel=1),
    "two-layer BN residual warp": WarpConv4Config(**CONV, **STRONG),
    "conv FiLM": WarpConv4Config(**CONV, warp_kind="film"),
    "BN residual conv FiLM": WarpConv4Config(**CONV, warp_kind="film", warp_batch_norm=True, warp_residual=True),
    "conv gate": WarpConv4Config(**CONV, warp_kind="gate"),
    "two-layer tanh residual conv gate": WarpConv4Config(
        **CONV, warp_kind="gate", warp_layers=2, warp_activation="tanh", warp_residual=True
    ),
    "warped head": WarpConv4Config(layers=1, filters=3, activation="sigmoid", warp_final_head=True),
    "designated norms": Conv4Config(**CONV, warp_pattern=("norm*", "conv1.weight")),
    "running statistics": WarpConv4Config(**CONV, bn_mode="running"),
}


class Stages(Noise):
    """Two sub-tasks after each other."""

    @property
    def phases(self):
        return 2


def make(model_config, learner=WarpGrad, config=WarpGradConfig, family=Noise, **options):
    """An algorithm for random data, and a meta-state in float64."""
    image = isinstance(model_config, Conv4Config)
    task = NoiseImagesConfig() if image else NoiseCurvesConfig()
    model = (build_conv4 if image else build_mlp)(model_config, task)
    algorithm = learner(config(**{"inner_lr": 0.2, "inner_steps": 3, **options}), model, family(task))
    return algorithm, doubled(algorithm.init(1))


def plain_loss(algorithm, params, stats, x, y):
    """The loss of a batch, without the code under test."""
    params = {name: value for name, value in params.items() if name in algorithm.model.roles}
    out = functional_call(algorithm.model.module, {**params, **stats}, (x,))
    return F.cross_entropy(out, y) if algorithm.model.kind == "classification" else ((out - y) ** 2).mean()


def slopes(algorithm, theta, phi, stats, x, y, loss=plain_loss):
    """∇θ L by the ordinary autograd."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    found = torch.autograd.grad(loss(algorithm, {**phi, **leaves}, stats, x, y), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def one_step(algorithm, theta, phi, stats, x, y, lr=0.2, loss=plain_loss):
    """θ − α ∇θ L."""
    slope = slopes(algorithm, theta, phi, stats, x, y, loss)
    return {name: value - lr * slope[name] for name, value in theta.items()}


def directional(objective, at, direction, h=1e-5):
    """The slope of `objective` along `direction`: central differences with steps h and h/2, extrapolated to O(h⁴)."""

    def central(h):
        up, down = ({n: v + s * direction[n] if n in direction else v for n, v in at.items()} for s in (h, -h))
        return float(objective(up) - objective(down)) / (2 * h)

    return (4 * central(h / 2) - central(h)) / 3


def random_direction(values, gen):
    return {n: torch.randn(v.shape, generator=gen, dtype=torch.float64) for n, v in values.items()}


def along(gradient, direction):
    return float(sum((gradient[n] * d).sum() for n, d in direction.items()))
