"""A point of the plane, with or without a learned map before it: the models of `surfaces`.

Shape suffixes: B batch, R the 9 numbers of a row of `surfaces`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from warploom.configs import TaskConfig
from warploom.models.base import Model, make_model
from warploom.models.configs.point import PointConfig, WarpPointConfig


class PlaneWarp(nn.Module):
    """Ω(x) = W2 tanh(W1 x + b1) + b2 (+ x). The residual form starts as the identity.

    Without the residual Ω squeezes the plane into a bounded patch around b2, so that parts of a surface cannot be
    reached at all.
    """

    def __init__(self, hidden: int, residual: bool) -> None:
        super().__init__()
        self.first = nn.Linear(2, hidden)
        self.second = nn.Linear(hidden, 2)
        self.residual = residual
        if residual:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)

    def forward(self, place_B2: Tensor) -> Tensor:
        """Warp [B, 2]."""
        warped: Tensor = self.second(torch.tanh(self.first(place_B2)))
        return place_B2 + warped if self.residual else warped


class Point(nn.Module):
    """Row (x1, x2, surface) ↦ row (Ω(x + θ), surface), with θ the two parameters that adapt."""

    def __init__(self, config: PointConfig) -> None:
        super().__init__()
        self.theta = nn.Parameter(config.spread * torch.randn(2))
        self.warp: nn.Module = nn.Identity()
        if isinstance(config, WarpPointConfig):
            self.warp = PlaneWarp(config.warp_hidden, config.warp_residual)

    def forward(self, x_BR: Tensor) -> Tensor:
        """Rows [B, 9] with the place where the point now is."""
        place: Tensor = self.warp(x_BR[..., :2] + self.theta)
        return torch.cat([place, x_BR[..., 2:]], dim=-1)


def build_point(config: PointConfig, task: TaskConfig) -> Model:
    """The point alone.

    Example:
        >>> from warploom.tasks.configs.surfaces import SurfacesConfig
        >>> build_point(PointConfig(), SurfacesConfig()).roles
        {'theta': 'adapt'}
    """
    return make_model(lambda: Point(config), config.role, task.kind)


def build_warp_point(config: WarpPointConfig, task: TaskConfig) -> Model:
    """The point seen through Ω."""
    return make_model(lambda: Point(config), config.role, task.kind)
