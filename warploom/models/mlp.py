"""Fully connected nets, plain and with warp layers: linear, FiLM-like scaling, gates."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from warploom.configs import TaskConfig
from warploom.models.base import Model, Scaling, activation, make_model
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig


class VectorWarp(nn.Module):
    """ω(h) = a(its kind), plus h with the residual.

    Kinds: `linear`, W h + b; `film`, γ ⊙ h + β; `gate`, whose a(W h + b) is multiplied by h. The residual forms of the
    first two start as the identity unless a(0) is something else; so does `film` without.
    """

    def __init__(self, width: int, config: WarpMLPConfig) -> None:
        super().__init__()
        act, self.residual = config.warp_activation, config.warp_residual
        self.gate = config.warp_kind == "gate"
        self.act = activation(act or "sigmoid") if act or self.gate else nn.Identity()
        if config.warp_kind == "film":
            self.scaling = Scaling(width, self.residual)
            return
        self.linear = nn.Linear(width, width)
        if self.residual:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, h_BD: Tensor) -> Tensor:
        """Warp [B, D]."""
        warped: Tensor = self.act(self.scaling(h_BD) if hasattr(self, "scaling") else self.linear(h_BD))
        if self.gate:
            warped = h_BD * warped
        return h_BD + warped if self.residual else warped


def build_mlp(config: MLPConfig, task: TaskConfig) -> Model:
    """Linear → activation for each hidden width, then a linear head.

    Example:
        >>> from warploom.tasks.configs.sinusoid import SinusoidConfig
        >>> build_mlp(MLPConfig(hidden=(40, 40)), SinusoidConfig()).names("head")
        ['head.weight', 'head.bias']
    """
    return make_model(lambda: _net(config, task), config.role, task.kind)


def build_warp_mlp(config: WarpMLPConfig, task: TaskConfig) -> Model:
    """`build_mlp` with a `VectorWarp` after each hidden activation."""
    return build_mlp(config, task)


def _net(config: MLPConfig, task: TaskConfig) -> nn.Module:
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    width = prod(task.input_shape)
    for i, hidden in enumerate(config.hidden):
        net.add_module(f"layer{i}", nn.Linear(width, hidden))
        net.add_module(f"act{i}", activation(config.activation))
        if isinstance(config, WarpMLPConfig):
            net.add_module(f"warp{i}", VectorWarp(hidden, config))
        width = hidden
    net.add_module("head", nn.Linear(width, task.outputs))
    return net
