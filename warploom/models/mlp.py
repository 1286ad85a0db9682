"""Fully connected nets, plain and with linear warp layers."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from warploom.configs import Role, TaskConfig
from warploom.models.base import Model, activation, make_model
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig


class LinearWarp(nn.Module):
    """ω(h) = W h + b (+ h), then an optional activation. The residual form starts as the identity."""

    def __init__(self, width: int, act: str | None, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.act = activation(act) if act else nn.Identity()
        self.residual = residual
        if residual:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, h_BD: Tensor) -> Tensor:
        """Warp [B, D]."""
        warped = self.linear(h_BD)
        out: Tensor = self.act(h_BD + warped if self.residual else warped)
        return out


def build_mlp(config: MLPConfig, task: TaskConfig) -> Model:
    """Linear → activation for each hidden width, then a linear head.

    Example:
        >>> from warploom.tasks.configs.sinusoid import SinusoidConfig
        >>> build_mlp(MLPConfig(hidden=(40, 40)), SinusoidConfig()).names("head")
        ['head.weight', 'head.bias']
    """
    return make_model(lambda: _net(config, task), _role, task.kind)


def build_warp_mlp(config: WarpMLPConfig, task: TaskConfig) -> Model:
    """`build_mlp` with a `LinearWarp` after each hidden activation."""
    return make_model(lambda: _net(config, task), _role, task.kind)


def _net(config: MLPConfig, task: TaskConfig) -> nn.Module:
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    width = prod(task.input_shape)
    for i, hidden in enumerate(config.hidden):
        net.add_module(f"layer{i}", nn.Linear(width, hidden))
        net.add_module(f"act{i}", activation(config.activation))
        if isinstance(config, WarpMLPConfig):
            net.add_module(f"warp{i}", LinearWarp(hidden, config.warp_activation, config.warp_residual))
        width = hidden
    net.add_module("head", nn.Linear(width, task.outputs))
    return net


def _role(name: str) -> Role:
    if name.startswith("warp"):
        return "warp"
    return "head" if name.startswith("head") else "adapt"
